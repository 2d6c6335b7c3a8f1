"""Data parallelism: runs on one device and on eight, which a second process simulates on one CPU, are equal."""

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
EXAMPLES = 150  # the last batch has 30 of 40 examples: six devices have five each, two have padding only
SHAPE = (9, 7, 3)

ALL = "coordinator_address, num_processes and process_id"


def make_split(count=EXAMPLES):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = np.clip(rng.normal(90 + 20 * labels[:, None, None, None], 50, (count, *SHAPE)), 0, 255)
    return Split(images.astype(np.uint8), labels)


def network():
    # No bias before a batch norm: its gradient is rounding error, which adam would scale up to full steps.
    return serial(Conv(4, 3, use_bias=False), BatchNorm(), relu, MaxPool(2), flatten, Dropout(0.2), Dense(CLASSES))


def add_noise(key, images):
    """Augment by a user's own function."""
    return images + 0.1 * jax.random.uniform(key, images.shape)


RUNS = {
    "adam, noise, EMA": {"optimizer": optax.adam(1e-2), "augment": add_noise, "ema_decay": 0.9},
    "nesterov, mixup, two seeds": {
        "optimizer": train.make_optimizer("nesterov", 0.05, "cosine", 8, max_grad_norm=1.0, weight_decay=1e-3),
        "mixup_fn": augment.mixup(0.4),
        "label_smoothing": 0.1,
        "seeds": [0, 3],
    },
    "muon, accumulation, lazy": {
        "optimizer": train.make_optimizer("muon", 0.01, "constant", 8),
        "grad_accumulation": 5,
        "lazy": True,
    },
}


def fit(mesh, *, lazy=False, **options):
    data, validation = make_split(), make_split(37)
    return (train.fit_seeds if "seeds" in options else train.fit)(
        network(), data.to_lazy() if lazy else data, validation, epochs=2, batch_size=BATCH, mesh=mesh, **options
    )


def runs(mesh):
    """Return the results, numbers of compilations and compiled HLO of every run."""
    results = {}
    for name, options in RUNS.items():
        fitted = fit(mesh, **options)
        batches = fitted.evaluator.batches(*make_split(37))
        scores = fitted.evaluator(*fitted.final_state.eval_variables, batches, logits=True)
        values = {
            "last": (fitted.final_state.params, fitted.final_state.state, fitted.final_state.ema),
            "best": (fitted.params, fitted.state),
            "history": [[record[name] for name in ("loss", "accuracy", "val_loss")] for record in fitted.history],
            "scores": scores,
        }
        compilations = {name: program.num_compilations for name, program in fitted.compiled.items()}
        hlo = {name: program._compiled.as_text() for name, program in fitted.compiled.items()}
        results[name] = jax.tree.map(np.asarray, values), compilations, hlo
    return results


VALID_MASK = np.arange(BATCH) < 29  # the sixth device has four valid examples of five, the last two have none


def images_of_increasing_brightness():
    """Return images of increasing brightness, so that the means differ between devices."""
    brightness = np.linspace(0, 1, BATCH, dtype=np.float32)[:, None, None, None]
    return brightness + 0.1 * np.random.default_rng(1).random((BATCH, *SHAPE), np.float32)


def batch_norm_statistics(mesh):
    """Return the running mean and variance after one step with momentum 0, which are those of the batch."""
    model, optimizer = serial(BatchNorm(momentum=0.0), flatten, Dense(2)), optax.sgd(0.1)
    train_state = distributed.replicate(mesh, train.create_train_state(model, optimizer, jax.random.key(0), SHAPE))
    batch = train.Batch(images_of_increasing_brightness(), np.zeros(BATCH, np.int32), VALID_MASK)
    train_state, _ = train.make_train_step(model, optimizer)(train_state, distributed.shard(mesh, batch))
    return jax.tree.map(np.asarray, train_state.state["bn1"])


def train_by_cli(folder, num_devices):
    """Train on ``num_devices`` devices by the command line."""
    line = (
        f"train --model mlp --epochs 2 --batch-size 64 --num-devices {num_devices} --run-dir {folder}/on{num_devices}"
    )
    with mock.patch("jaxconv.plot"):  # plotting takes longer than training
        assert cli.main(line.split()) == 0


def compute_results(folder, num_devices):
    mesh = distributed.create_mesh() if num_devices > 1 else None
    train_by_cli(folder, num_devices)
    return SimpleNamespace(runs=runs(mesh), statistics=batch_norm_statistics(mesh))


if __name__ == "__main__":  # run by the fixture below, in a process that simulates eight devices
    eight = compute_results(sys.argv[1], DEVICES)
    Path(sys.argv[1], "results.pickle").write_bytes(pickle.dumps(vars(eight)))
    sys.exit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def results(folder):
    """Return the results on one device and on eight."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, __file__, str(folder)], env=environment)
    try:
        with jax.numpy_dtype_promotion("standard"):
            one = compute_results(folder, 1)
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
    return one, SimpleNamespace(**pickle.loads((folder / "results.pickle").read_bytes()))


def assert_close(one, eight):
    """Compare up to rounding, which eight training steps amplify."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), one, eight)


@pytest.mark.parametrize("name", RUNS)
def test_fit_on_eight_devices_matches_one(results, name):
    """Compare parameters, running statistics and EMA of the last step and the best epoch, and scores and logits."""
    one, eight = (result.runs[name] for result in results)
    assert_close(one[0], eight[0])
    assert one[1] == eight[1] == {"train": 1, "eval": 1}
    assert int(np.max(one[0]["scores"].examples)) == 37


def test_batch_norm_uses_global_batch_statistics(results):
    """The mean variance per device is much smaller than the variance of the batch, since the means differ."""
    valid = images_of_increasing_brightness()[VALID_MASK].astype(np.float64)
    mean, var = valid.mean((0, 1, 2)), valid.var((0, 1, 2))
    var_per_device = np.mean([valid[i : i + 5].var((0, 1, 2)) for i in range(0, len(valid), 5)], axis=0)
    assert (var_per_device < 0.1 * var).all()
    for result in results:
        np.testing.assert_allclose(result.statistics["mean"], mean, rtol=1e-5)
        n = valid.size / valid.shape[-1]
        np.testing.assert_allclose(result.statistics["var"], var, rtol=2 / n)  # for a divisor of n or n − 1


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(hlo):
    return {kind for kind in COLLECTIVES if re.search(rf" {kind}(-start)?\(", hlo)}


@pytest.mark.parametrize("name", RUNS)
def test_compiled_step_uses_only_all_reduce(results, name):
    """No device holds more of a batch than its five examples; only mixup gathers examples of other devices."""
    one, eight = (result.runs[name][2] for result in results)
    assert collectives(one["train"]) == collectives(one["eval"]) == set()
    assert collectives(eight["eval"]) == {"all-reduce"}
    if "mixup" in name:
        assert collectives(eight["train"]) == {"all-reduce", "all-gather"}
        return
    assert collectives(eight["train"]) == {"all-reduce"}
    batch_shape = ",".join(map(str, (BATCH, *SHAPE)))
    assert f"[{batch_shape}]" in one["train"] or "accumulation" in name
    assert f"[{batch_shape}]" not in eight["train"] and f"u8[{BATCH}" not in eight["train"]


def test_cli_train_on_eight_devices_matches_one(results, folder):
    one, eight = (load_run(folder / f"on{count}") for count in (1, DEVICES))
    assert_close((one.params, one.state), (eight.params, eight.state))
    assert eight.config["num_devices"] == DEVICES


def test_create_mesh_rejects_invalid_num_devices():
    assert dict(distributed.create_mesh().shape) == {"data": jax.device_count()}
    too_many = jax.device_count() + 1
    for count in (0, -1, too_many):
        with pytest.raises(
            InputError, match=f"distributed.create_mesh: num_devices={count}, but there are {jax.device_count()}"
        ):
            distributed.create_mesh(count)
    with pytest.raises(InputError, match=rf'XLA_FLAGS="--xla_force_host_platform_device_count={too_many}" simulates'):
        distributed.create_mesh(too_many)


def test_fit_with_explicit_mesh_axes_matches_auto():
    """Explicit axes are the default of ``jax.make_mesh``; with them jax raises an error for a gather."""
    fitted = []
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((1,), ("data",), axis_types=(axis_type,))
        options = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": BATCH, "mesh": mesh}
        fitted.append(train.fit(network(), make_split(), make_split(20), **options))
    for auto, explicit in zip(*map(jax.tree.leaves, [result.params for result in fitted]), strict=True):
        np.testing.assert_array_equal(auto, explicit)


def test_cli_train_reports_missing_devices(tmp_path, capsys):
    assert cli.main(f"train --model mlp --num-devices 999 --run-dir {tmp_path / 'run'}".split()) == 2
    assert "jaxconv: error: distributed.create_mesh: num_devices=999, but there are" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_create_mesh_groups_devices_by_process(monkeypatch):
    """On a TPU slice the devices are numbered row by row, across the hosts."""
    devices = [SimpleNamespace(id=i, process_index=i // 2 % 2, platform="tpu") for i in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(distributed, "Mesh", lambda mesh_devices, axes, axis_types: mesh_devices)
    assert [device.id for device in distributed.create_mesh()] == [0, 1, 4, 5, 2, 3, 6, 7]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="devices=4 would leave out some of 2 processes: use all 8 devices"):
        distributed.create_mesh(4)


def test_local_batch_slices_partition_batch(monkeypatch):
    assert distributed.local_batch_slice(6) == slice(0, 6)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    indices = []
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        indices += range(6)[distributed.local_batch_slice(6)]
    assert indices == list(range(6))
    with pytest.raises(InputError, match=r"fit: there are 3 processes: give mesh=distributed.create_mesh\(\)"):
        distributed.check_batch_divisible(None, 6, "fit")


@pytest.mark.parametrize(("size", "closest"), [(30, 32), (1, 8), (13, 16), (100, 96)])
def test_check_batch_divisible_suggests_closest_size(size, closest):
    with pytest.raises(InputError, match=f"fit: batch_size={size} is not divisible by 8 devices; use {closest}$"):
        distributed.check_batch_divisible(SimpleNamespace(size=8), size, "fit")
    distributed.check_batch_divisible(SimpleNamespace(size=8), closest, "fit")


@pytest.mark.parametrize(
    ("args", "message"),
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
def test_initialize_rejects_invalid_arguments(args, message, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("jax.distributed was called"))
    with pytest.raises(InputError, match=r"^distributed.initialize: ") as raised:
        distributed.initialize(*args)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_initialize_after_jax_is_used_raises():
    jax.devices()
    with pytest.raises(InputError, match=r"initialize: jax.distributed.initialize\(\) must be called before any"):
        distributed.initialize()


def test_single_process_without_cluster(monkeypatch):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for args in ((), ("auto",)):
        message = r"initialize: jax detects no cluster: give coordinator_address"
        with pytest.raises(InputError, match=message):
            distributed.initialize(*args)
    distributed.assert_equal("settings", {"seed": 0})
    assert distributed.broadcast_from_main(True) is True and distributed.broadcast_from_main(False) is False
