"""Checkpoints are restored bit for bit; damaged, missing, incompatible and partial ones are detected."""

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import Conv, Dense, InputError, flatten, serial
from jaxconv.train import OPTIMIZERS, Snapshot, TrainProgress, restore_best, restore_snapshot, save_checkpoint
from jaxconv.train.checkpointing import _interrupt_deferred
from snapshots import assert_same, files, flip, like, made


def checkpoints_in(folder):
    """Return the names in the folder, except the history."""
    return sorted(path.name for path in folder.iterdir() if path.name != "history.jsonl")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_save_restore_round_trips_snapshot(tmp_path, optimizer):
    snapshot = made(optimizer=optimizer, ema=True)
    save_checkpoint(tmp_path / "checkpoints", snapshot)
    assert_same(restore_snapshot(tmp_path / "checkpoints", like(snapshot)), snapshot)


@pytest.mark.parametrize("options", [{"seed": [0, 1]}, {"model": serial(flatten, Dense(2))}, {"optimizer": "sgd"}])
def test_save_round_trips_ensemble_and_empty_trees(tmp_path, options):
    snapshot = made(**options)
    save_checkpoint(tmp_path / "c", snapshot)
    assert_same(restore_snapshot(tmp_path / "c", like(snapshot)), snapshot)
    restored = Snapshot(snapshot.train_state, restore_best(tmp_path / "c", like(snapshot)[1]), snapshot.progress)
    assert_same(restored, snapshot)


def test_save_round_trips_device_metric_sums(tmp_path):
    """JSON is exact: every float32 is a float64, and repr round-trips every float64."""
    values = np.random.default_rng(0).random((2, 3, 4), np.float32)
    names = "loss", "accuracy", "count"
    on_device = tuple(dict(zip(names, map(jnp.asarray, execution), strict=True)) for execution in values)
    snapshot = made()._replace(progress=TrainProgress(metric_sums=on_device))
    save_checkpoint(tmp_path / "c", snapshot)
    restored = restore_snapshot(tmp_path / "c", like(snapshot)).progress
    np.testing.assert_array_equal([[execution[name] for name in names] for execution in restored.metric_sums], values)
    jax.tree.map(np.testing.assert_array_equal, restored.sums(), snapshot.progress.sums())
    np.testing.assert_array_equal(restored.sums().count, values[:, 2].astype(np.float64).sum(axis=0))


@pytest.mark.parametrize("max_to_keep", [1, 2, 3])
def test_save_keeps_max_to_keep_and_restores_newest(tmp_path, max_to_keep):
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 9, 10):
        save_checkpoint(folder, made(step), max_to_keep=max_to_keep)
    assert checkpoints_in(folder) == sorted(["1", "2", "9", "10"][-max_to_keep:])
    assert_same(restore_snapshot(folder, like(made())), made(10))
    shutil.rmtree(folder / "10")
    if max_to_keep > 1:
        assert_same(restore_snapshot(folder, like(made())), made(9))
    with pytest.raises(InputError, match="save_checkpoint: max_to_keep=0 should be an int of at least 1"):
        save_checkpoint(folder, made(11), max_to_keep=0)


def test_each_checkpoint_contains_best_epoch(tmp_path):
    first, second = made(1), made(2)
    save_checkpoint(tmp_path / "c", first)
    save_checkpoint(tmp_path / "c", second._replace(best=first.best), max_to_keep=1)
    jax.tree.map(np.testing.assert_array_equal, restore_best(tmp_path / "c", like(first)[1]), first.best)


def test_partial_checkpoint_is_ignored_and_removed_by_save(tmp_path):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))
    shutil.copytree(folder / "1", folder / "partial-2")
    assert_same(restore_snapshot(folder, like(made())), made(1))
    assert (folder / "partial-2").exists()  # a reader must not remove it: another process may be writing it
    shutil.copytree(folder / "1", folder / "partial-3")
    save_checkpoint(folder, made(3))
    assert checkpoints_in(folder) == ["1", "3"]
    assert_same(restore_snapshot(folder, like(made())), made(3))


@pytest.mark.parametrize("name", ["missing", "empty", "partial"])
def test_restore_without_checkpoint_raises(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "partial" / "partial-1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no checkpoint: did its training stop before the first epoch ended\?"):
        restore_best(tmp_path / name, like(made())[1])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    for step in (1, 2, 3):
        save_checkpoint(folder, made(step), max_to_keep=3)
    return folder


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_file_is_named_with_intact_checkpoint(tmp_path, three, damage):
    """Every file is damaged in turn: the arrays, the progress and the manifest."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    rng = np.random.default_rng(0)
    names = [path.relative_to(folder) for path in files(folder / "3")]
    assert [name.name for name in names] == ["best_variables.npz", "manifest.json", "progress.json", "train_state.npz"]
    for name in names:
        path = folder / name
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif not content:
            continue
        elif damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        else:
            flip(path, rng.integers(len(content)))
        with pytest.raises(InputError) as caught:
            restore_snapshot(folder, like(made()))
        assert str(caught.value).startswith(f"the checkpoint {folder}/3 is damaged ({name.relative_to('3')}") or (
            name.name == "manifest.json"
        )
        assert str(caught.value).endswith(f"): delete {folder}/3 to use {folder}/2, which is intact")
        assert "\n" not in str(caught.value)
        path.write_bytes(content)
    assert_same(restore_snapshot(folder, like(made())), made(3))


def test_restore_after_deleting_damaged_uses_previous(tmp_path, three):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    for step in ("3", "2"):
        flip(folder / step / "progress.json", 20)
    message = (
        f"the checkpoint {folder}/3 is damaged (progress.json has changed): delete {folder}/3 and {folder}/2 to use "
    )
    with pytest.raises(InputError) as caught:
        restore_snapshot(folder, like(made()))
    assert str(caught.value) == message + f"{folder}/1, which is intact"
    shutil.rmtree(folder / "3")
    shutil.rmtree(folder / "2")
    assert_same(restore_snapshot(folder, like(made())), made(1))
    flip(folder / "1" / "train_state.npz", 20)
    with pytest.raises(
        InputError, match=r"/1 is damaged \(train_state.npz has changed\): no other checkpoint is intact"
    ):
        restore_snapshot(folder, like(made()))


def test_restore_ignores_unrelated_files(tmp_path, three):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    (folder / "3" / ".DS_Store").write_bytes(b"hello")
    (folder / "notes.txt").write_text("notes")
    assert_same(restore_snapshot(folder, like(made())), made(3))


def test_restore_other_model_lists_all_differences(tmp_path):
    save_checkpoint(tmp_path / "c", made())
    other = made(model=serial(Conv(3, 2), flatten, Dense(5)))
    with pytest.raises(InputError, match=r"the checkpoint .*c/3 is of another model: ") as caught:
        restore_best(tmp_path / "c", like(other)[1])
    assert str(caught.value).partition(": ")[2].split("; ") == [
        "params/bn1/bias: expected nothing, got float32(3,)",
        "params/bn1/scale: expected nothing, got float32(3,)",
        "params/dense1/bias: expected float32(5,), got float32(2,)",
        "params/dense1/kernel: expected float32(27, 5), got float32(27, 2)",
        "state/bn1/mean: expected nothing, got float32(3,)",
        "state/bn1/var: expected nothing, got float32(3,)",
    ]


def test_restore_other_optimizer_seeds_or_dtype_raises(tmp_path):
    save_checkpoint(tmp_path / "c", made())
    with pytest.raises(InputError, match=r"another model: .*opt_state/1/0/mu/bn1/bias: expected nothing, got float32"):
        restore_snapshot(tmp_path / "c", like(made(optimizer="sgd")))
    with pytest.raises(InputError, match=r"params/bn1/bias: expected float32\(2, 3\), got float32\(3,\);"):
        restore_snapshot(tmp_path / "c", like(made(seed=[0, 1])))
    with pytest.raises(InputError, match="ema/0/bn1/bias: expected float32"):
        restore_snapshot(tmp_path / "c", like(made(ema=True)))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), like(made())[1])
    with pytest.raises(InputError, match=r"params/bn1/bias: expected bfloat16\(3,\), got float32\(3,\);"):
        restore_best(tmp_path / "c", target)


def assert_write_failed(caught, folder, reason):
    assert str(caught.value) == (
        f"the checkpoint {folder}/2 cannot be written: {reason}; the previous one, {folder}/1, is intact"
    )
    assert checkpoints_in(folder) == ["1"]
    assert_same(restore_snapshot(folder, like(made())), made(1))


@pytest.fixture
def limit_file_size():
    """Return a function that limits the size of files in bytes, as ``ulimit -f`` does."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)


def test_save_on_full_disk_keeps_previous_and_raises_one_line(tmp_path, limit_file_size, capfd):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))
    limit_file_size(1000)
    with pytest.raises(InputError) as caught:
        save_checkpoint(folder, made(2))
    assert_write_failed(caught, folder, "File too large")
    assert capfd.readouterr() == ("", "")
    limit_file_size(resource.RLIM_INFINITY)
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


def file_name(fd):
    return Path(f"/proc/self/fd/{fd}").readlink().name


@pytest.mark.parametrize(
    "fails", ["train_state.npz", "best_variables.npz", "history.jsonl", "progress.json", "manifest.json", "2"]
)
def test_save_failing_in_any_file_keeps_previous(tmp_path, monkeypatch, fails):
    """The error occurs in each file, and in the final rename."""
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))

    def full(name):
        if fails in (name, name[1:].rpartition(".")[0].rpartition(".")[0]):  # .train_state.npz.01234567.partial
            raise OSError(28, "No space left on device")

    sync, replace = os.fsync, os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (full(file_name(fd)), sync(fd)))
        patch.setattr(os, "replace", lambda old, new: (full(Path(new).name), replace(old, new)))
        with pytest.raises(InputError) as caught:
            save_checkpoint(folder, made(2))
        assert_write_failed(caught, folder, "No space left on device")
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of one megabyte; skip without permission."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_save_on_small_full_disk_keeps_previous(small_disk, capfd):
    folder = small_disk / "checkpoints"
    save_checkpoint(folder, made(1))
    with pytest.raises(OSError):
        (small_disk / "filler").write_bytes(bytes(2**20))
    with pytest.raises(InputError) as caught:
        save_checkpoint(folder, made(2))
    assert_write_failed(caught, folder, "No space left on device")
    assert capfd.readouterr() == ("", "")
    (small_disk / "filler").unlink()
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


def test_interrupt_deferred_keeps_ignored_sigint():
    """SIGINT is ignored in background jobs of a script."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_ctrl_c_is_deferred_until_write_is_complete(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        with _interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # not deferred any more
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (signal.raise_signal(signal.SIGINT), replace(*paths)))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", made())
    assert_same(restore_snapshot(tmp_path / "c", like(made())), made())
