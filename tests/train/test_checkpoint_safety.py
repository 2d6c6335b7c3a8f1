"""Checkpoints under power cuts, kills, concurrent readers and invalid files."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.train import all_steps, history, restore_best, restore_snapshot, save_checkpoint
from jaxconv.train.snapshots import read_arrays, write_arrays
from snapshots import assert_same, files, flip, like, made, records


def test_save_syncs_files_before_rename_and_folder_after(tmp_path, monkeypatch):
    """Files are identified by inode and size, since their names change during the write."""
    events, folder = [], tmp_path / "checkpoints"

    def record_fsync(fd):
        state = os.fstat(fd)
        events.append((state.st_ino, state.st_size))

    replace = os.replace
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", lambda old, new: (replace(old, new), events.append(Path(new).name)))
    for step in (1, 2):
        events.clear()
        save_checkpoint(folder, made(step))
        renamed = events.index(str(step))
        for file in [*files(folder / str(step)), folder / "history.jsonl"]:
            assert (file.stat().st_ino, file.stat().st_size) in events[:renamed], file
        inodes = [event[0] for event in events if isinstance(event, tuple)]
        last_file = max(i for i, event in enumerate(events[:renamed]) if isinstance(event, str))
        assert (folder / str(step)).stat().st_ino in [event[0] for event in events[last_file + 1 : renamed]]
        assert folder.stat().st_ino in [event[0] for event in events[renamed + 1 :]]
        assert (tmp_path.stat().st_ino in inodes) == (step == 1)  # the folder itself is new


@pytest.mark.parametrize("opened", range(4))
@pytest.mark.parametrize("read", ["snapshot", "best"])
def test_restore_during_removal_reads_newest_checkpoint(tmp_path, monkeypatch, opened, read):
    """Just before the reader opens its n-th file, training saves twice and keeps only the last checkpoint."""
    folder, snapshots, opened_paths = tmp_path / "checkpoints", {step: made(step) for step in (1, 2, 3)}, []
    save_checkpoint(folder, snapshots[1])
    os_open = os.open

    def open_after_saves(path, *args, **options):
        if str(path).startswith(f"{folder}/1/"):
            opened_paths.append(path)
            if len(opened_paths) == opened + 1:
                for step in (2, 3):
                    save_checkpoint(folder, snapshots[step], max_to_keep=1)
        return os_open(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_after_saves)
        if read == "snapshot":
            assert_same(restore_snapshot(folder, like(snapshots[1])), snapshots[3])
        else:
            best = restore_best(folder, like(snapshots[1])[1])
            jax.tree.map(np.testing.assert_array_equal, best, snapshots[3].best)
    assert all_steps(folder) == [3]


def test_restore_raises_if_checkpoints_keep_disappearing(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(os, "listdir", lambda folder: ["1", "2"])
    with pytest.raises(InputError, match=r"the checkpoints in .*/c are replaced faster than they can be read: try aga"):
        restore_best(tmp_path / "c", like(made())[1])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", "{}", "manifest.json does not list train_state.npz"),
        ("manifest.json", "[]", "manifest.json is damaged: Expected `object`, got `array`"),
        ("manifest.json", "{", "manifest.json is not JSON: "),
        ("manifest.json", '{"train_state.npz": 5}', "manifest.json is damaged: Expected `str`, got `int`"),
        ("progress.json", "{", "progress.json: it is not JSON"),
        ("progress.json", "[]", "progress.json: it is damaged: Expected `object`"),
        ("progress.json", '{"history": {"bytes": -1, "sha256": ""}}', "progress.json: Expected `int` >= 0"),
        ("progress.json", '{"history": {"bytes": 1000000000000000000, "sha256": ""}}', "history.jsonl is cut short"),
        ("progress.json", '{"epoch": 2}', "progress.json: Expected `object`, got `null`"),
        (
            "progress.json",
            '{"history": {"bytes": 0, "sha256": ""}, "epoch": "two"}',
            "progress.json: Expected `int`, got `str`",
        ),
        (
            "progress.json",
            '{"history": {"bytes": 0, "sha256": ""}, "metric_sums": [[1, 2]]}',
            "progress.json: Expected `object`, got `array`",
        ),
        (
            "progress.json",
            '{"history": {"bytes": 0, "sha256": ""}, "metric_sums": [{"count": [1, 2]}, {"count": 3}]}',
            "progress.json: setting an array element",
        ),
        (
            "progress.json",
            '{"history": {"bytes": 0, "sha256": ""}, "metric_sums": [{"count": 1}, {}]}',
            "progress.json: 'count'",
        ),
        ("train_state.npz", "PK", "train_state.npz: not an archive of arrays: "),
    ],
)
def test_restore_invalid_content_raises_one_line(tmp_path, name, content, reason):
    """The manifest has the matching SHA-256, so the content is parsed; the message names the previous checkpoint."""
    folder = tmp_path / "checkpoints"
    for step in (2, 3):
        save_checkpoint(folder, made(step))
    (folder / "3" / name).write_text(content)
    if name != "manifest.json":
        digests = json.loads((folder / "3" / "manifest.json").read_text())
        digests[name] = hashlib.sha256(content.encode()).hexdigest()
        (folder / "3" / "manifest.json").write_text(json.dumps(digests))
    with pytest.raises(InputError) as caught:
        restore_snapshot(folder, like(made()))
    assert str(caught.value).startswith(f"the checkpoint {folder}/3 is damaged ({reason}")
    assert str(caught.value).endswith(f"): delete {folder}/3 to use {folder}/2, which is intact")
    assert "\n" not in str(caught.value)


def test_unreadable_folder_raises_reason(tmp_path, monkeypatch):
    file = tmp_path / "checkpoints"
    file.write_text("")
    for call in (lambda: all_steps(file), lambda: restore_best(file, like(made())[1])):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == f"the checkpoints in {file} cannot be read: Not a directory"

    def denied(*args):
        raise PermissionError(13, "Permission denied", str(args[0]))

    folder = tmp_path / "c"
    save_checkpoint(folder, made())
    with monkeypatch.context() as patch:  # patched, since root can read any file
        patch.setattr(os, "listdir", denied)
        with pytest.raises(InputError, match=f"^the checkpoints in {folder} cannot be read: Permission denied$"):
            restore_snapshot(folder, like(made()))
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InputError, match=f"^{folder}/3/manifest.json cannot be read: Permission denied$"):
        restore_snapshot(folder, like(made()))


@pytest.mark.parametrize("seed", range(20))
def test_history_prefix_survives_random_events(tmp_path, monkeypatch, seed):
    """Events: epochs, kills (also within a line), resuming from an older snapshot, and deletion of the file."""
    rng = random.Random(seed)
    current, saved, num_epochs = (), [], 0
    for _ in range(40):
        event = rng.choice(["epoch", "epoch", "epoch", "two epochs", "kill", "rewind", "delete", "repeat"])
        if event in ("kill", "rewind"):
            monkeypatch.setattr(history, "_last", None)  # as in a new process
            if (tmp_path / "history.jsonl").exists() and rng.random() < 0.7:
                with (tmp_path / "history.jsonl").open("ab") as file:
                    file.write(b'{"epoch": 99, "loss": 0.123}\n{"epoch": 100'[: rng.randint(1, 42)])
            if saved:
                saved = saved[: rng.randint(1, len(saved))] if event == "rewind" else saved
                current = saved[-1][1]
        elif event == "delete" and saved:
            (tmp_path / "history.jsonl").unlink()
        elif event != "repeat":
            for _ in range(1 + (event == "two epochs")):
                num_epochs += 1
                current = (*current, {"epoch": len(current) + 1, "loss": rng.random(), "epoch_seconds": num_epochs})
        if event not in ("kill", "rewind"):
            saved.append((history.write_history(tmp_path, current), current))
        if (tmp_path / "history.jsonl").exists():
            for prefix, expected in saved:
                assert history.read_history(tmp_path, prefix) == expected
    assert num_epochs > 10


def test_save_appends_one_line_to_history(tmp_path):
    save_checkpoint(tmp_path, made(1))
    history_file, sizes = tmp_path / "history.jsonl", []
    inode = history_file.stat().st_ino
    for step in range(2, 40):
        previous = history_file.read_bytes()
        save_checkpoint(tmp_path, made(step))
        assert history_file.read_bytes().startswith(previous) and history_file.stat().st_ino == inode
        sizes.append((tmp_path / str(step) / "progress.json").stat().st_size)
    assert max(sizes) - min(sizes) < 5  # the number of digits of the length differs
    assert [json.loads(line) for line in history_file.read_text().splitlines()] == list(records(39))


def test_write_history_stores_modified_record(tmp_path):
    record = {"epoch": 1, "dead_layers": []}
    history.write_history(tmp_path, (record,))
    record["dead_layers"].append("relu1")
    prefix = history.write_history(tmp_path, (record,))
    assert history.read_history(tmp_path, prefix) == ({"epoch": 1, "dead_layers": ["relu1"]},)


def test_damaged_history_affects_restore_snapshot_only(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, made(step), max_to_keep=3)
    history_file = tmp_path / "history.jsonl"
    flip(history_file, history_file.stat().st_size - 20)  # in the last record, which is not in the second checkpoint
    with pytest.raises(InputError, match=r"3 is damaged \(history.jsonl has changed\): delete .*/3 to use .*/2, "):
        restore_snapshot(tmp_path, like(made()))
    jax.tree.map(np.testing.assert_array_equal, restore_best(tmp_path, like(made())[1]), made(3).best)
    history_file.unlink()
    with pytest.raises(InputError, match=r"3 is damaged \(history.jsonl is missing\): no other checkpoint is intact"):
        restore_snapshot(tmp_path, like(made()))


def test_restore_checkpoint_of_older_version_raises(tmp_path):
    save_checkpoint(tmp_path, made(2))
    for old, new in (("position.json", "progress.json"), ("train.npz", "train_state.npz")):
        (tmp_path / "2" / new).rename(tmp_path / "2" / old)
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files(tmp_path / "2")}
    (tmp_path / "2" / "manifest.json").write_text(json.dumps(digests))
    with pytest.raises(InputError, match=r"^the checkpoint .*2 was written by an older jaxconv: train again$"):
        restore_snapshot(tmp_path, like(made()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "uint2", "bool", "complex64", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2)])
def test_write_arrays_round_trips_every_dtype_and_shape(dtype, shape):
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
    file = io.BytesIO()
    write_arrays(file, {"a": {"b.npy": array}})
    restored = read_arrays(file)["a/b.npy"]
    assert (
        restored.dtype == array.dtype and restored.shape == shape and restored.tobytes() == np.asarray(array).tobytes()
    )


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_save_round_trips_random_keys(tmp_path, impl):
    keys = jax.random.split(jax.random.key(5, impl=impl), 3)
    snapshot = made()
    snapshot = snapshot._replace(train_state=snapshot.train_state._replace(state={"noise": keys}))
    save_checkpoint(tmp_path, snapshot)
    restored = restore_snapshot(tmp_path, jax.eval_shape(lambda: snapshot[:2])).train_state.state["noise"]
    assert restored.dtype == keys.dtype and bool((restored == keys).all())


def test_write_arrays_with_equal_paths_raises():
    with pytest.raises(InputError, match=r"^two arrays have the same path"):
        write_arrays(io.BytesIO(), {"a/b": np.ones(1), "a": {"b": np.ones(2)}})


def test_read_arrays_compressed_or_oversized_raises():
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(10**6))
    with pytest.raises(InputError, match=r"^x.npy is compressed$"):
        read_arrays(file)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": (10**18,), "fortran_order": False, "descr": "<f4"})
    with pytest.raises(InputError, match=r"^not an archive of arrays: "):
        read_arrays(file)


def test_save_replaces_partial_folder_and_ignores_symlink(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "partial-3").symlink_to(tmp_path / "elsewhere")
    (folder / "partial-1").write_text("")
    save_checkpoint(folder, made(3))
    assert_same(restore_snapshot(folder, like(made())), made(3))
    assert not list((tmp_path / "elsewhere").iterdir()) and {path.name for path in folder.iterdir()} == {
        "3",
        "history.jsonl",
    }


def test_save_does_not_leak_memory(tmp_path):
    """Orbax leaked 50 to 100 kB per save, 5 to 10 MB in these hundred."""
    script = Path(__file__).parents[1] / "helpers" / "attack" / "saves.py"
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else str(tmp_path)  # avoids slow disks
    process = subprocess.run(
        [sys.executable, script, "--saves", "150", "--every", "50", "--folder", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = [float(line.split()[2]) for line in process.stdout.splitlines()]
    assert len(sizes) == 3 and sizes[-1] - sizes[0] < 1.5, process.stdout


def test_process_killed_during_save_keeps_intact_checkpoint(tmp_path):
    """Kills are at random moments, mostly within a write; each process verifies the checkpoint of the previous one."""
    script = Path(__file__).parents[1] / "helpers" / "attack" / "save_kills.py"
    subprocess.run([sys.executable, script, "--kills", "8", "--folder", tmp_path], check=True)
