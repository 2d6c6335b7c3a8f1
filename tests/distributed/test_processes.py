"""Two processes on this machine, joined by jax.distributed: together they make the network that one makes alone."""

import json
import math
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import optax
import pytest

from jaxconv import (
    BatchNorm,
    Conv,
    Dense,
    InputError,
    MaxPool,
    cli,
    data,
    distributed,
    flatten,
    models,
    relu,
    serial,
    train,
)
from jaxconv.data import LazySplit
from jaxconv.models import registry
from jaxconv.runs import TrainConfig, load_run, resume_training, run_training, runner

pytestmark = [pytest.mark.usefixtures("promoting"), pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on")]
SHAPE, BATCH, EPOCHS = (9, 7, 3), 20, 2
LINE = f"train --dataset npz:data.npz --model small_bn --epochs {EPOCHS} --batch-size {BATCH} --seed 3 --ema-decay 0.9"
READ, WRITTEN = [], []


def small_bn(num_classes=10):
    return serial(Conv(4, 3, use_bias=False), BatchNorm(), relu, MaxPool(2), flatten, Dense(num_classes))


def counting(take):
    """Remember which images are read, in the order of the file's."""

    def counted(split, indices):
        READ.extend(np.asarray(indices).tolist())
        return take(split, indices)

    return counted


def watch(event, args):
    """Remember which files are written."""
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
        WRITTEN.append(str(args[0]))


def refused(call, *args):
    try:
        call(*args)
    except InputError as error:
        return str(error)


def noisy(key, images):
    """Of every image other noise: a network that meets an image at another place of its batch is another."""
    return images + jax.random.uniform(key, images.shape)


def in_memory(process):
    """An epoch of examples that lie on the devices; after which steps it pauses, if process 0 alone has a clock."""
    dataset, after = data.load("npz:data.npz"), []
    with mock.patch.dict(train.plan_epoch.__globals__, VALUES_A_CHUNK=4 * BATCH * math.prod(SHAPE)):
        fitted = train.fit(
            small_bn(5),
            dataset.train,
            dataset.validation,
            optimizer=optax.sgd(0.1),
            epochs=1,
            batch_size=BATCH,
            mesh=distributed.create_mesh(),
            augment=noisy,
            on_checkpoint=lambda snapshot: after.append(int(snapshot.train_state.step)),
            checkpoint_seconds=-1 if process == 0 else 1e9,
        )
    return after, train.tree_sha256(fitted.params), jax.tree.map(np.asarray, fitted.params)


def one_of_two(address, process):
    """What one of the two processes does, and can tell of."""
    sys.addaudithook(watch)
    LazySplit.take = counting(LazySplit.take)
    line = f"{LINE} --run-dir together --coordinator-address {address} --num-processes 2"
    assert cli.main([*line.split(), "--process-id", str(process)]) == 0
    told = {"count": jax.process_count(), "read": list(READ), "written": list(WRITTEN)}
    told["resumed"] = resume_training(Path("by one, then by two"), progress=False)[1]["epochs_run"]
    told["in memory"] = in_memory(process)
    config = TrainConfig(dataset="npz:data.npz", model="small_bn", batch_size=BATCH, run_dir=Path("refused"))
    told["refused"] = {
        "same": refused(distributed.assert_equal, "settings", {"seed": 0, "x": np.ones(3)}),
        "settings": refused(distributed.assert_equal, "settings", {"seed": process}),
        "places": refused(distributed.assert_equal, "settings", {"a": process or None, "b": None if process else 1}),
        "arrays": refused(distributed.replicate, distributed.create_mesh(), np.full(3, process)),
        "no out": refused(run_training, replace(config, run_dir=None)),
        "taken": refused(run_training, replace(config, run_dir=Path("together"))),
        "seeds": refused(run_training, replace(config, seed=process)),
        "batch": refused(run_training, replace(config, batch_size=BATCH + 1)),
    }
    return told


if __name__ == "__main__":
    models.register_model(input_shape=SHAPE)(small_bn)
    with mock.patch.object(runner, "plot"):
        told = one_of_two(sys.argv[1], int(sys.argv[2]))
    Path(f"told {sys.argv[2]}").write_bytes(pickle.dumps(told))
    sys.exit()


def write_data(folder):
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in {"train": 230, "test": 31}.items():
        labels = rng.integers(0, 5, count)
        images = rng.normal(90 + 20 * labels[:, None, None, None], 50, (count, *SHAPE))
        parts |= {f"{part}_images": np.clip(images, 0, 255).astype(np.uint8), f"{part}_labels": labels}
    np.savez(folder / "data.npz", **parts)


def cut_short(folder, to):
    """A run as it was when its first epoch had been saved."""
    shutil.copytree(folder, to)
    (to / "result.json").unlink()
    shutil.rmtree(to / "checkpoints" / str(train.all_steps(to / "checkpoints")[-1]))
    lines = (to / "metrics.jsonl").read_text().splitlines()
    (to / "metrics.jsonl").write_text(lines[0] + "\n")


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which one process has trained, and then two; and what each of the two tells."""
    folder = tmp_path_factory.mktemp("processes")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.chdir(folder)
        patch.setitem(registry._SPECS, "small_bn", models.ModelSpec("small_bn", small_bn, SHAPE, ""))
        patch.setattr(runner, "plot", mock.Mock())  # drawing takes longer than training
        assert cli.main(f"{LINE} --run-dir alone".split()) == 0
        cut_short(folder / "alone", folder / "by one, then by two")
        address = f"localhost:{free_port()}"
        pair = [
            subprocess.Popen(
                [sys.executable, __file__, address, str(process)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
            )
            for process in (1, 0)
        ]
        try:
            with ThreadPoolExecutor(2) as pool:  # both are read all the time: a full pipe would hold its process up
                said = list(pool.map(lambda process: process.communicate(timeout=300), pair))[::-1]
        finally:
            for process in pair:
                process.kill()
        assert [process.returncode for process in pair] == [0, 0], said
        cut_short(folder / "together", folder / "by two, then by one")
        assert resume_training(Path("by two, then by one"), progress=False)[1]["epochs_run"] == EPOCHS
        yield folder, [pickle.loads((folder / f"told {process}").read_bytes()) for process in (0, 1)], said


def close(one, two):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), one, two)


@pytest.mark.parametrize("name", ["together", "by one, then by two", "by two, then by one"])
def test_two_processes_make_what_one_makes(trained, name):
    """Parameters and running statistics of the best epoch, and the records of both; also across an interruption."""
    folder, _, _ = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._SPECS, "small_bn", models.ModelSpec("small_bn", small_bn, SHAPE, ""))
        alone, other = (load_run(folder / run) for run in ("alone", name))
    close((alone.params, alone.state), (other.params, other.state))
    one, two = (
        [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("alone", name)
    )
    assert len(one) == len(two) == EPOCHS
    for number in ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy"):
        close([record[number] for record in one], [record[number] for record in two])
    one, two = (json.loads((folder / run / "result.json").read_text()) for run in ("alone", name))
    for number in ("test_loss", "test_accuracy", "num_test_examples", "steps", "epochs_run"):
        assert two[number] == pytest.approx(one[number], rel=1e-4)


def test_each_process_reads_its_own_half(trained):
    """Ten of every twenty; each image is read once an epoch, and nothing twice but what fills up the last batch.

    Before, both read all of so few images, for their fingerprint.
    """
    folder, told, _ = trained
    count = json.loads((folder / "alone" / "config.json").read_text())["num_examples"]["train"]
    steps = -(-count // BATCH)
    assert [each["read"][:count] for each in told] == [list(range(count))] * 2
    halves = [each["read"][count:] for each in told]
    assert [each["count"] for each in told] == [2, 2]
    assert [len(half) for half in halves] == [EPOCHS * steps * BATCH // 2] * 2
    for epoch in range(EPOCHS):
        here, there = (half[epoch * len(half) // EPOCHS :][: len(half) // EPOCHS] for half in halves)
        assert set(here) | set(there) == set(range(count))
        assert len(here) + len(there) - count == steps * BATCH - count > 0


def test_the_first_process_writes_and_speaks(trained):
    folder, told, said = trained
    (out, _), (quiet, _) = said
    assert "test accuracy" in out and out.count("saved in together") == 1
    assert "test accuracy" not in quiet and "epoch" not in quiet
    assert any("result.json" in path and path.endswith(".partial") for path in told[0]["written"])
    assert [path for path in told[1]["written"] if "together" in path and "checkpoint" not in path] == []
    assert {path.name for path in (folder / "together").iterdir()} == {
        path.name for path in (folder / "alone").iterdir()
    }


@pytest.mark.parametrize(
    ("what", "message"),
    {
        "same": None,
        "settings": "process 1 has other settings than process 0: give all processes the same",
        "places": "process 1 has other settings than process 0: give all processes the same",
        "arrays": "process 1 has other arrays than process 0: give all processes the same",
        "no out": "several processes must share one run folder: give each the same --run-dir",
        "taken": "together already has a run: give another --run-dir, or continue it with --resume",
        "seeds": "process 1 has other settings, data or versions than process 0: give all processes the same",
        "batch": f"fit: batch_size={BATCH + 1} does not divide among 2 devices; take {BATCH}",
    }.items(),
)
def test_what_cannot_work_is_said_in_both(trained, what, message):
    """And nothing waits for a process that has given up."""
    folder, told, _ = trained
    assert [each["refused"][what] for each in told] == [message, message]
    assert not (folder / "refused").exists()


def test_examples_in_memory_are_trained_on_as_by_one_process(trained, monkeypatch):
    """Each takes its half of every batch; and one clock decides when to pause. There are three chunks an epoch."""
    folder, told, _ = trained
    monkeypatch.chdir(folder)
    after, _, params = in_memory(0)
    (one, two) = (each["in memory"] for each in told)
    assert one[:2] == two[:2] and one[0] == after == [4, 8]
    close(params, one[2])


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_waits_in_vain_says_so(process):
    address = f"localhost:{free_port()}"
    program = f"from jaxconv import distributed; distributed.initialize({address!r}, 2, {process}, timeout=1)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and time.monotonic() - started < 60
    assert "InputError: distributed.initialize: not all processes have come to localhost:" in done.stderr


def test_one_of_three_options_is_not_enough(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--coordinator-address", "localhost:1234", "--process-id", "0"]) == 2
    assert capsys.readouterr().err == (
        "jaxconv: error: distributed.initialize: without num_processes: give "
        "coordinator_address, num_processes and process_id, or none\n"
    )
    assert not list(tmp_path.iterdir())
