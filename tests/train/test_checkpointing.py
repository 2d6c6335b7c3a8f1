"""Checkpoints come back bit for bit; damaged, missing, foreign and half-written ones are told from good ones."""

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


def saved(folder):
    """What there is in it besides the history."""
    return sorted(path.name for path in folder.iterdir() if path.name != "history.jsonl")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_saved_comes_back(tmp_path, optimizer):
    snapshot = made(optimizer=optimizer, ema=True)
    save_checkpoint(tmp_path / "checkpoints", snapshot)
    assert_same(restore_snapshot(tmp_path / "checkpoints", like(snapshot)), snapshot)


@pytest.mark.parametrize("options", [{"seed": [0, 1]}, {"model": serial(flatten, Dense(2))}, {"optimizer": "sgd"}])
def test_an_ensemble_an_empty_state_and_an_empty_optimizer_come_back(tmp_path, options):
    snapshot = made(**options)
    save_checkpoint(tmp_path / "c", snapshot)
    assert_same(restore_snapshot(tmp_path / "c", like(snapshot)), snapshot)
    found = Snapshot(snapshot.train_state, restore_best(tmp_path / "c", like(snapshot)[1]), snapshot.progress)
    assert_same(found, snapshot)


def test_chunks_measured_on_the_device_come_back_as_the_same_numbers(tmp_path):
    """What is JSON is exact: every float32 is a float64, and repr gives every float64 back."""
    numbers = np.random.default_rng(0).random((2, 3, 4), np.float32)
    names = "loss", "accuracy", "count"
    on_device = tuple(dict(zip(names, map(jnp.asarray, chunk), strict=True)) for chunk in numbers)
    snapshot = made()._replace(progress=TrainProgress(metric_sums=on_device))
    save_checkpoint(tmp_path / "c", snapshot)
    found = restore_snapshot(tmp_path / "c", like(snapshot)).progress
    np.testing.assert_array_equal([[chunk[name] for name in names] for chunk in found.metric_sums], numbers)
    jax.tree.map(np.testing.assert_array_equal, found.sums(), snapshot.progress.sums())
    np.testing.assert_array_equal(found.sums().count, numbers[:, 2].astype(np.float64).sum(axis=0))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept_and_the_newest_is_read(tmp_path, keep):
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 9, 10):
        save_checkpoint(folder, made(step), max_to_keep=keep)
    assert saved(folder) == sorted(["1", "2", "9", "10"][-keep:])
    assert_same(restore_snapshot(folder, like(made())), made(10))
    shutil.rmtree(folder / "10")
    if keep > 1:
        assert_same(restore_snapshot(folder, like(made())), made(9))
    with pytest.raises(InputError, match="save_checkpoint: max_to_keep=0 should be an int of at least 1"):
        save_checkpoint(folder, made(11), max_to_keep=0)


def test_the_best_epoch_is_kept_in_each(tmp_path):
    first, second = made(1), made(2)
    save_checkpoint(tmp_path / "c", first)
    save_checkpoint(tmp_path / "c", second._replace(best=first.best), max_to_keep=1)
    jax.tree.map(np.testing.assert_array_equal, restore_best(tmp_path / "c", like(first)[1]), first.best)


def test_a_write_that_was_cut_off_is_not_taken_for_a_checkpoint_and_goes(tmp_path):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))
    shutil.copytree(folder / "1", folder / "partial-2")
    assert_same(restore_snapshot(folder, like(made())), made(1))
    assert (folder / "partial-2").exists()  # reading writes nothing: it may be somebody's who is writing
    shutil.copytree(folder / "1", folder / "partial-3")
    save_checkpoint(folder, made(3))
    assert saved(folder) == ["1", "3"]
    assert_same(restore_snapshot(folder, like(made())), made(3))


@pytest.mark.parametrize("name", ["none", "empty", "half"])
def test_no_checkpoint_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "partial-1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no checkpoint: did its training stop before the first epoch ended\?"):
        restore_best(tmp_path / name, like(made())[1])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    for step in (1, 2, 3):
        save_checkpoint(folder, made(step), max_to_keep=3)
    return folder


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "missing"])
def test_damage_anywhere_is_named_and_the_one_before_offered(tmp_path, three, damage):
    """In each file: the arrays', the position and the manifest itself."""
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
        elif damage == "cut short":
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


def test_after_deleting_what_is_damaged_the_one_before_is_used(tmp_path, three):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    for step in ("3", "2"):
        flip(folder / step / "progress.json", 20)
    said = f"the checkpoint {folder}/3 is damaged (progress.json has changed): delete {folder}/3 and {folder}/2 to use "
    with pytest.raises(InputError) as caught:
        restore_snapshot(folder, like(made()))
    assert str(caught.value) == said + f"{folder}/1, which is intact"
    shutil.rmtree(folder / "3")
    shutil.rmtree(folder / "2")
    assert_same(restore_snapshot(folder, like(made())), made(1))
    flip(folder / "1" / "train_state.npz", 20)
    with pytest.raises(
        InputError, match=r"/1 is damaged \(train_state.npz has changed\): no other checkpoint is intact"
    ):
        restore_snapshot(folder, like(made()))


def test_a_file_that_somebody_puts_there_harms_nothing(tmp_path, three):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three, folder)
    (folder / "3" / ".DS_Store").write_bytes(b"hello")
    (folder / "notes.txt").write_text("the good ones")
    assert_same(restore_snapshot(folder, like(made())), made(3))


def test_another_models_checkpoint_is_refused_with_every_difference(tmp_path):
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


def test_another_optimizer_number_of_networks_or_dtype_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", made())
    with pytest.raises(InputError, match=r"another model: .*opt_state/1/0/mu/bn1/bias: expected nothing, got float32"):
        restore_snapshot(tmp_path / "c", like(made(optimizer="sgd")))
    with pytest.raises(InputError, match=r"params/bn1/bias: expected float32\(2, 3\), got float32\(3,\);"):
        restore_snapshot(tmp_path / "c", like(made(seed=[0, 1])))
    with pytest.raises(InputError, match="ema/0/bn1/bias: expected float32"):
        restore_snapshot(tmp_path / "c", like(made(ema=True)))
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), like(made())[1])
    with pytest.raises(InputError, match=r"params/bn1/bias: expected bfloat16\(3,\), got float32\(3,\);"):
        restore_best(tmp_path / "c", half)


def assert_full(caught, folder, why):
    assert str(caught.value) == (
        f"the checkpoint {folder}/2 cannot be written: {why}; the previous one, {folder}/1, is intact"
    )
    assert saved(folder) == ["1"]
    assert_same(restore_snapshot(folder, like(made())), made(1))


@pytest.fixture
def limited():
    """Files can be no longer than a number of bytes, as under ``ulimit -f``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_one_before_and_says_so_in_a_line(tmp_path, limited, capfd):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))
    limited(1000)
    with pytest.raises(InputError) as caught:
        save_checkpoint(folder, made(2))
    assert_full(caught, folder, "File too large")
    assert capfd.readouterr() == ("", "")
    limited(resource.RLIM_INFINITY)
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


def name_of(fd):
    return Path(f"/proc/self/fd/{fd}").readlink().name


@pytest.mark.parametrize(
    "fails", ["train_state.npz", "best_variables.npz", "history.jsonl", "progress.json", "manifest.json", "2"]
)
def test_a_disk_that_fills_up_in_the_middle_leaves_the_one_before(tmp_path, monkeypatch, fails):
    """In each file, and in the last rename."""
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, made(1))

    def full(name):
        if fails in (name, name[1:].rpartition(".")[0].rpartition(".")[0]):  # .train_state.npz.01234567.partial
            raise OSError(28, "No space left on device")

    sync, replace = os.fsync, os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (full(name_of(fd)), sync(fd)))
        patch.setattr(os, "replace", lambda old, new: (full(Path(new).name), replace(old, new)))
        with pytest.raises(InputError) as caught:
            save_checkpoint(folder, made(2))
        assert_full(caught, folder, "No space left on device")
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte, where we may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made_it = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if made_it.returncode:
        pytest.skip("only root can make a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_small_disk_that_is_full(small_disk, capfd):
    folder = small_disk / "checkpoints"
    save_checkpoint(folder, made(1))
    with pytest.raises(OSError):
        (small_disk / "films").write_bytes(bytes(2**20))
    with pytest.raises(InputError) as caught:
        save_checkpoint(folder, made(2))
    assert_full(caught, folder, "No space left on device")
    assert capfd.readouterr() == ("", "")
    (small_disk / "films").unlink()
    save_checkpoint(folder, made(2))
    assert_same(restore_snapshot(folder, like(made())), made(2))


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As in a script's background job: the Ctrl-C is meant for somebody else."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_write(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        with _interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # and comes at once again afterwards
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (signal.raise_signal(signal.SIGINT), replace(*paths)))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", made())
    assert_same(restore_snapshot(tmp_path / "c", like(made())), made())
