"""Multi-process training: two processes, connected by jax.distributed, give the results of a single process."""

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
READ_INDICES, WRITTEN_FILES = [], []


def small_bn(num_classes=10):
    return serial(Conv(4, 3, use_bias=False), BatchNorm(), relu, MaxPool(2), flatten, Dense(num_classes))


def recording(take):
    """Record the indices of the images that are read."""

    def recorded(split, indices):
        READ_INDICES.extend(np.asarray(indices).tolist())
        return take(split, indices)

    return recorded


def record_written_files(event, args):
    """Record the files that are opened for writing, as an audit hook."""
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
        WRITTEN_FILES.append(str(args[0]))


def error_message(call, *args):
    try:
        call(*args)
    except InputError as error:
        return str(error)


def add_noise(key, images):
    """Add noise that differs between images, so that results depend on the position of an image in its batch."""
    return images + jax.random.uniform(key, images.shape)


def fit_in_memory(process):
    """Train one epoch on data in device memory; return the checkpointed steps, a digest and the parameters.

    Only process 0 has a checkpoint interval that has elapsed.
    """
    dataset, checkpoint_steps = data.load("npz:data.npz"), []
    with mock.patch.dict(train.plan_epoch.__globals__, PIXELS_PER_EXECUTION=4 * BATCH * math.prod(SHAPE)):
        fitted = train.fit(
            small_bn(5),
            dataset.train,
            dataset.validation,
            optimizer=optax.sgd(0.1),
            epochs=1,
            batch_size=BATCH,
            mesh=distributed.create_mesh(),
            augment=add_noise,
            on_checkpoint=lambda snapshot: checkpoint_steps.append(int(snapshot.train_state.step)),
            checkpoint_seconds=-1 if process == 0 else 1e9,
        )
    return checkpoint_steps, train.tree_sha256(fitted.params), jax.tree.map(np.asarray, fitted.params)


def run_process(address, process):
    """Run one of the two processes, and return its results."""
    sys.addaudithook(record_written_files)
    LazySplit.take = recording(LazySplit.take)
    line = f"{LINE} --run-dir two-processes --coordinator-address {address} --num-processes 2"
    assert cli.main([*line.split(), "--process-id", str(process)]) == 0
    results = {"count": jax.process_count(), "read": list(READ_INDICES), "written": list(WRITTEN_FILES)}
    results["resumed"] = resume_training(Path("one-then-two"), progress=False)[1]["epochs_run"]
    results["in memory"] = fit_in_memory(process)
    config = TrainConfig(dataset="npz:data.npz", model="small_bn", batch_size=BATCH, run_dir=Path("failed"))
    none_first, none_last = {"a": None, "b": 1}, {"a": 1, "b": None}
    results["errors"] = {
        "equal": error_message(distributed.assert_equal, "settings", {"seed": 0, "x": np.ones(3)}),
        "settings": error_message(distributed.assert_equal, "settings", {"seed": process}),
        "keys": error_message(distributed.assert_equal, "settings", none_last if process else none_first),
        "arrays": error_message(distributed.replicate, distributed.create_mesh(), np.full(3, process)),
        "no run_dir": error_message(run_training, replace(config, run_dir=None)),
        "existing run_dir": error_message(run_training, replace(config, run_dir=Path("two-processes"))),
        "seeds": error_message(run_training, replace(config, seed=process)),
        "batch": error_message(run_training, replace(config, batch_size=BATCH + 1)),
    }
    return results


if __name__ == "__main__":
    models.register_model(input_shape=SHAPE)(small_bn)
    with mock.patch.object(runner, "plot"):
        results = run_process(sys.argv[1], int(sys.argv[2]))
    Path(f"results {sys.argv[2]}").write_bytes(pickle.dumps(results))
    sys.exit()


def write_data(folder):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 230, "test": 31}.items():
        labels = rng.integers(0, 5, count)
        images = rng.normal(90 + 20 * labels[:, None, None, None], 50, (count, *SHAPE))
        arrays |= {f"{split}_images": np.clip(images, 0, 255).astype(np.uint8), f"{split}_labels": labels}
    np.savez(folder / "data.npz", **arrays)


def copy_interrupted_run(folder, target):
    """Copy a run folder in its state after the checkpoint of the first epoch."""
    shutil.copytree(folder, target)
    (target / "result.json").unlink()
    shutil.rmtree(target / "checkpoints" / str(train.all_steps(target / "checkpoints")[-1]))
    lines = (target / "metrics.jsonl").read_text().splitlines()
    (target / "metrics.jsonl").write_text(lines[0] + "\n")


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train with one process and with two; return the folder, the results and the outputs of the two processes."""
    folder = tmp_path_factory.mktemp("processes")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.chdir(folder)
        patch.setitem(registry._SPECS, "small_bn", models.ModelSpec("small_bn", small_bn, SHAPE, ""))
        patch.setattr(runner, "plot", mock.Mock())  # plotting takes longer than training
        assert cli.main(f"{LINE} --run-dir one-process".split()) == 0
        copy_interrupted_run(folder / "one-process", folder / "one-then-two")
        address = f"localhost:{free_port()}"
        processes = [
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
            with ThreadPoolExecutor(2) as pool:  # read both outputs at once: a full pipe would block its process
                outputs = list(pool.map(lambda process: process.communicate(timeout=300), processes))[::-1]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], outputs
        copy_interrupted_run(folder / "two-processes", folder / "two-then-one")
        assert resume_training(Path("two-then-one"), progress=False)[1]["epochs_run"] == EPOCHS
        yield folder, [pickle.loads((folder / f"results {process}").read_bytes()) for process in (0, 1)], outputs


def assert_close(one, two):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), one, two)


@pytest.mark.parametrize("name", ["two-processes", "one-then-two", "two-then-one"])
def test_two_processes_match_one(trained, name):
    """Compare parameters and running statistics of the best epoch, and all metrics; also of resumed runs."""
    folder, _, _ = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._SPECS, "small_bn", models.ModelSpec("small_bn", small_bn, SHAPE, ""))
        one, two = (load_run(folder / run) for run in ("one-process", name))
    assert_close((one.params, one.state), (two.params, two.state))
    one, two = (
        [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one-process", name)
    )
    assert len(one) == len(two) == EPOCHS
    for key in ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy"):
        assert_close([record[key] for record in one], [record[key] for record in two])
    one, two = (json.loads((folder / run / "result.json").read_text()) for run in ("one-process", name))
    for key in ("test_loss", "test_accuracy", "num_test_examples", "steps", "epochs_run"):
        assert two[key] == pytest.approx(one[key], rel=1e-4)


def test_each_process_reads_half_of_each_batch(trained):
    """Each image is read once per epoch, by one process; only the padding of the last batch is read twice.

    Before training, both processes read the complete dataset, which is small, to compute its fingerprint.
    """
    folder, results, _ = trained
    count = json.loads((folder / "one-process" / "config.json").read_text())["num_examples"]["train"]
    steps = -(-count // BATCH)
    assert [result["read"][:count] for result in results] == [list(range(count))] * 2
    indices_read = [result["read"][count:] for result in results]
    assert [result["count"] for result in results] == [2, 2]
    assert [len(indices) for indices in indices_read] == [EPOCHS * steps * BATCH // 2] * 2
    for epoch in range(EPOCHS):
        first, second = (
            indices[epoch * len(indices) // EPOCHS :][: len(indices) // EPOCHS] for indices in indices_read
        )
        assert set(first) | set(second) == set(range(count))
        assert len(first) + len(second) - count == steps * BATCH - count > 0


def test_only_main_process_writes_and_logs(trained):
    folder, results, outputs = trained
    (main_output, _), (other_output, _) = outputs
    assert "test accuracy" in main_output and main_output.count("saved in two-processes") == 1
    assert "test accuracy" not in other_output and "epoch" not in other_output
    assert any("result.json" in path and path.endswith(".partial") for path in results[0]["written"])
    assert [path for path in results[1]["written"] if "two-processes" in path and "checkpoint" not in path] == []
    assert {path.name for path in (folder / "two-processes").iterdir()} == {
        path.name for path in (folder / "one-process").iterdir()
    }


@pytest.mark.parametrize(
    ("case", "message"),
    {
        "equal": None,
        "settings": "settings of process 1 differ from those of process 0: give all processes the same",
        "keys": "settings of process 1 differ from those of process 0: give all processes the same",
        "arrays": "arrays of process 1 differ from those of process 0: give all processes the same",
        "no run_dir": "several processes must share one run folder: give each the same --run-dir",
        "existing run_dir": "two-processes already has a run: give another --run-dir, or continue it with --resume",
        "seeds": "settings, data or versions of process 1 differ from those of process 0: give all processes the same",
        "batch": f"fit: batch_size={BATCH + 1} is not divisible by 2 devices; use {BATCH}",
    }.items(),
)
def test_errors_raise_in_both_processes(trained, case, message):
    """No process waits for one that has failed."""
    folder, results, _ = trained
    assert [result["errors"][case] for result in results] == [message, message]
    assert not (folder / "failed").exists()


def test_in_memory_training_matches_one_process(trained, monkeypatch):
    """Each process takes half of every batch, and the clock of process 0 decides when to save a checkpoint.

    An epoch has three executions.
    """
    folder, results, _ = trained
    monkeypatch.chdir(folder)
    checkpoint_steps, _, params = fit_in_memory(0)
    (first, second) = (result["in memory"] for result in results)
    assert first[:2] == second[:2] and first[0] == checkpoint_steps == [4, 8]
    assert_close(params, first[2])


@pytest.mark.parametrize("process", [0, 1])
def test_initialize_timeout_raises(process):
    address = f"localhost:{free_port()}"
    program = f"from jaxconv import distributed; distributed.initialize({address!r}, 2, {process}, timeout=1)"
    start_time = time.monotonic()
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert completed.returncode == 1 and time.monotonic() - start_time < 60
    assert "InputError: distributed.initialize: not all processes connected to localhost:" in completed.stderr


def test_cli_train_rejects_incomplete_process_options(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--coordinator-address", "localhost:1234", "--process-id", "0"]) == 2
    assert capsys.readouterr().err == (
        "jaxconv: error: distributed.initialize: without num_processes: give "
        "coordinator_address, num_processes and process_id, or none\n"
    )
    assert not list(tmp_path.iterdir())
