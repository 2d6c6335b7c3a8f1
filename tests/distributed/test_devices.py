"""The same run on one device and on eight: a second Python, which takes this CPU for eight, does what this one does."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, MaxPool, cli, distributed, flatten, relu, serial, train
from jaxconv.data import augment
from jaxconv.data.base import Split
from jaxconv.runs import load_run

pytestmark = pytest.mark.usefixtures("promoting")
DEVICES, BATCH, CLASSES = 8, 40, 5
EXAMPLES = 150  # the last batch has 30 of 40: six devices with five examples each, and two with padding alone
SHAPE = (9, 7, 3)

ALL = "coordinator_address, num_processes and process_id"


def examples(count=EXAMPLES):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = np.clip(rng.normal(90 + 20 * labels[:, None, None, None], 50, (count, *SHAPE)), 0, 255)
    return Split(images.astype(np.uint8), labels)


def network():
    # No bias before a batch norm: its gradient is rounding alone, which adam makes steps of.
    return serial(Conv(4, 3, use_bias=False), BatchNorm(), relu, MaxPool(2), flatten, Dropout(0.2), Dense(CLASSES))


def noisy(key, images):
    """Any function of a key and images can augment."""
    return images + 0.1 * jax.random.uniform(key, images.shape)


RUNS = {
    "adam, noise, average": {"optimizer": optax.adam(1e-2), "augment": noisy, "ema_decay": 0.9},
    "nesterov, mixup, two seeds": {
        "optimizer": train.make_optimizer("nesterov", 0.05, "cosine", 8, max_grad_norm=1.0, weight_decay=1e-3),
        "mixup_fn": augment.mixup(0.4),
        "label_smoothing": 0.1,
        "seeds": [0, 3],
    },
    "muon, in parts, streamed": {
        "optimizer": train.make_optimizer("muon", 0.01, "constant", 8),
        "grad_accumulation": 5,
        "lazy": True,
    },
}


def fit(mesh, *, lazy=False, **options):
    data, validation = examples(), examples(37)
    return (train.fit_seeds if "seeds" in options else train.fit)(
        network(), data.to_lazy() if lazy else data, validation, epochs=2, batch_size=BATCH, mesh=mesh, **options
    )


def runs(mesh):
    """What every run comes to, in numbers; how often it was compiled; and what into."""
    found = {}
    for name, options in RUNS.items():
        fitted = fit(mesh, **options)
        batches = fitted.evaluator.batches(*examples(37))
        scores = fitted.evaluator(*fitted.final_state.eval_variables, batches, logits=True)
        numbers = {
            "last": (fitted.final_state.params, fitted.final_state.state, fitted.final_state.ema),
            "best": (fitted.params, fitted.state),
            "history": [[record[name] for name in ("loss", "accuracy", "val_loss")] for record in fitted.history],
            "scores": scores,
        }
        compilations = {name: program.num_compilations for name, program in fitted.compiled.items()}
        hlo = {name: program._compiled.as_text() for name, program in fitted.compiled.items()}
        found[name] = jax.tree.map(np.asarray, numbers), compilations, hlo
    return found


COUNTED = np.arange(BATCH) < 29  # the sixth device has four of five examples, the last two have none


def brightening():
    """Every image brighter than the one before, so that the devices see different means."""
    light = np.linspace(0, 1, BATCH, dtype=np.float32)[:, None, None, None]
    return light + 0.1 * np.random.default_rng(1).random((BATCH, *SHAPE), np.float32)


def statistics(mesh):
    """The running mean and variance after one step, where they are the batch's."""
    model, optimizer = serial(BatchNorm(momentum=0.0), flatten, Dense(2)), optax.sgd(0.1)
    ts = distributed.replicate(mesh, train.create_train_state(model, optimizer, jax.random.key(0), SHAPE))
    batch = distributed.shard(mesh, train.Batch(brightening(), np.zeros(BATCH, np.int32), COUNTED))
    ts, _ = train.make_train_step(model, optimizer)(ts, batch)
    return jax.tree.map(np.asarray, ts.state["bn1"])


def command(folder, count):
    """A run folder made by the command line, on so many devices."""
    line = f"train --model mlp --epochs 2 --batch-size 64 --num-devices {count} --run-dir {folder}/on{count}"
    with mock.patch("jaxconv.plot"):  # drawing takes longer than training
        assert cli.main(line.split()) == 0


def everything(folder, count):
    mesh = distributed.create_mesh() if count > 1 else None
    command(folder, count)
    return SimpleNamespace(runs=runs(mesh), statistics=statistics(mesh))


if __name__ == "__main__":  # for the tests below, where this CPU is eight devices
    there = everything(sys.argv[1], DEVICES)
    Path(sys.argv[1], "found").write_bytes(pickle.dumps(vars(there)))
    sys.exit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def found(folder):
    """What all of it comes to on one device, and on eight."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    other = subprocess.Popen([sys.executable, __file__, str(folder)], env=environment)
    try:
        with jax.numpy_dtype_promotion("standard"):
            here = everything(folder, 1)
        assert other.wait(timeout=300) == 0
    finally:
        other.kill()
    return here, SimpleNamespace(**pickle.loads((folder / "found").read_bytes()))


def close(one, eight):
    """Equal but for rounding, which eight steps make more of."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), one, eight)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_on_eight_devices(found, name):
    """Parameters, running statistics and averages, of the last step and the best epoch; scores and logits."""
    one, eight = (each.runs[name] for each in found)
    close(one[0], eight[0])
    assert one[1] == eight[1] == {"train": 1, "eval": 1}
    assert int(np.max(one[0]["scores"].examples)) == 37


def test_batch_norm_sees_the_whole_batch(found):
    """The mean of the devices' own variances is less, by the variance of their means, which is most of it here."""
    counted = brightening()[COUNTED].astype(np.float64)
    mean, var = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
    of_devices = np.mean([counted[i : i + 5].var((0, 1, 2)) for i in range(0, len(counted), 5)], axis=0)
    assert (of_devices < 0.1 * var).all()
    for each in found:
        np.testing.assert_allclose(each.statistics["mean"], mean, rtol=1e-5)
        n = counted.size / counted.shape[-1]
        np.testing.assert_allclose(each.statistics["var"], var, rtol=2 / n)  # whichever of n and n − 1 it divides by


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(hlo):
    return {kind for kind in COLLECTIVES if re.search(rf" {kind}(-start)?\(", hlo)}


@pytest.mark.parametrize("name", RUNS)
def test_devices_exchange_sums_and_nothing_else(found, name):
    """No device ever holds more of a batch than its five examples; only mixup has to fetch their partners."""
    here, there = (each.runs[name][2] for each in found)
    assert collectives(here["train"]) == collectives(here["eval"]) == set()
    assert collectives(there["eval"]) == {"all-reduce"}
    if "mixup" in name:
        assert collectives(there["train"]) == {"all-reduce", "all-gather"}
        return
    assert collectives(there["train"]) == {"all-reduce"}
    whole = ",".join(map(str, (BATCH, *SHAPE)))
    assert f"[{whole}]" in here["train"] or "parts" in name
    assert f"[{whole}]" not in there["train"] and f"u8[{BATCH}" not in there["train"]


def test_the_command_line_trains_the_same_on_eight_devices(found, folder):
    one, eight = (load_run(folder / f"on{count}") for count in (1, DEVICES))
    close((one.params, one.state), (eight.params, eight.state))
    assert eight.config["num_devices"] == DEVICES


def test_a_mesh_is_of_devices_that_are_there():
    assert dict(distributed.create_mesh().shape) == {"data": jax.device_count()}
    too_many = jax.device_count() + 1
    for count in (0, -1, too_many):
        with pytest.raises(
            InputError, match=f"distributed.create_mesh: num_devices={count}, but there are {jax.device_count()}"
        ):
            distributed.create_mesh(count)
    with pytest.raises(InputError, match=rf'XLA_FLAGS="--xla_force_host_platform_device_count={too_many}" makes'):
        distributed.create_mesh(too_many)


def test_a_mesh_of_explicit_axes_trains_the_same():
    """As ``jax.make_mesh`` makes them, on which a gather is an error of jax's."""
    fitted = []
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((1,), ("data",), axis_types=(axis_type,))
        options = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": BATCH, "mesh": mesh}
        fitted.append(train.fit(network(), examples(), examples(20), **options))
    for one, other in zip(*map(jax.tree.leaves, [each.params for each in fitted]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_command_line_says_that_devices_are_missing(tmp_path, capsys):
    assert cli.main(f"train --model mlp --num-devices 999 --run-dir {tmp_path / 'run'}".split()) == 2
    assert "jaxconv: error: distributed.create_mesh: num_devices=999, but there are" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_devices_of_a_process_are_neighbours_in_the_mesh(monkeypatch):
    """On a slice of TPUs they are numbered row by row, across the hosts."""
    there = [SimpleNamespace(id=i, process_index=i // 2 % 2, platform="tpu") for i in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: there)
    monkeypatch.setattr(distributed, "Mesh", lambda row, axes, axis_types: row)
    assert [device.id for device in distributed.create_mesh()] == [0, 1, 4, 5, 2, 3, 6, 7]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="devices=4 would leave out some of 2 processes: all 8 devices take part"):
        distributed.create_mesh(4)


def test_each_process_provides_its_share(monkeypatch):
    assert distributed.local_batch_slice(6) == slice(0, 6)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    shares = []
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares += range(6)[distributed.local_batch_slice(6)]
    assert shares == list(range(6))
    with pytest.raises(InputError, match=r"fit: there are 3 processes: give mesh=distributed.create_mesh\(\)"):
        distributed.check_batch_divisible(None, 6, "fit")


@pytest.mark.parametrize(("size", "near"), [(30, 32), (1, 8), (13, 16), (100, 96)])
def test_a_batch_has_to_divide_among_the_devices(size, near):
    with pytest.raises(InputError, match=f"fit: batch_size={size} does not divide among 8 devices; take {near}$"):
        distributed.check_batch_divisible(SimpleNamespace(size=8), size, "fit")
    distributed.check_batch_divisible(SimpleNamespace(size=8), near, "fit")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1234",), f"without num_processes and process_id: give {ALL}, or none"),
        (("auto", 2), "without coordinator_address and process_id: give"),
        ((None, 2, 0), "without coordinator_address: give"),
        (("localhost:1234", 2, 2), "process_id=2 should be from 0 to 1"),
        (("localhost:1234", 2, -1), "process_id=-1 should be an int of at least 0"),
        (("localhost:1234", 0, 0), "num_processes=0 should be an int of at least 1"),
        (("localhost", 2, 0), "coordinator_address='localhost' should be host:port, such as 10.0.0.1:1234"),
        (("localhost:70000", 2, 0), "coordinator_address='localhost:70000' should be host:port"),
        ((":1234", 2, 0), "coordinator_address=':1234' should be host:port"),
    ],
)
def test_a_start_that_cannot_work_is_said(given, message, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("it went on"))
    with pytest.raises(InputError, match=r"^distributed.initialize: ") as raised:
        distributed.initialize(*given)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_jax_that_is_in_use_already_cannot_be_joined():
    jax.devices()
    with pytest.raises(InputError, match=r"initialize: jax.distributed.initialize\(\) must be called before any"):
        distributed.initialize()


def test_alone_there_is_nothing_to_find_and_nobody_to_ask(monkeypatch):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for given in ((), ("auto",)):
        message = r"initialize: jax finds no cluster that this is a part of: give coordinator_addr"
        with pytest.raises(InputError, match=message):
            distributed.initialize(*given)
    distributed.assert_equal("settings", {"seed": 0})
    assert distributed.broadcast_from_main(True) is True and distributed.broadcast_from_main(False) is False
