"""Checkpoints under power cuts, kills, readers while somebody writes, and strangers' files."""

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


def test_all_of_a_snapshot_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    """By inode and size, so that it does not matter how the files were called meanwhile."""
    events, folder = [], tmp_path / "checkpoints"

    def synced(fd):
        state = os.fstat(fd)
        events.append((state.st_ino, state.st_size))

    replace = os.replace
    monkeypatch.setattr(os, "fsync", synced)
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
def test_a_reader_whose_snapshot_is_removed_meanwhile_has_a_whole_one(tmp_path, monkeypatch, opened, read):
    """The training saves twice, and keeps one, just before the reader opens a file: the first, the second, …"""
    folder, wanted, count = tmp_path / "checkpoints", {step: made(step) for step in (1, 2, 3)}, []
    save_checkpoint(folder, wanted[1])
    real = os.open

    def interrupted(path, *args, **options):
        if str(path).startswith(f"{folder}/1/"):
            count.append(path)
            if len(count) == opened + 1:
                for step in (2, 3):
                    save_checkpoint(folder, wanted[step], max_to_keep=1)
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", interrupted)
        if read == "snapshot":
            assert_same(restore_snapshot(folder, like(wanted[1])), wanted[3])
        else:
            found = restore_best(folder, like(wanted[1])[1])
            jax.tree.map(np.testing.assert_array_equal, found, wanted[3].best)
    assert all_steps(folder) == [3]


def test_a_reader_that_is_always_too_late_says_so(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(os, "listdir", lambda folder: ["1", "2"])
    with pytest.raises(InputError, match=r"the checkpoints in .*/c are replaced faster than they can be read: try aga"):
        restore_best(tmp_path / "c", like(made())[1])


@pytest.mark.parametrize(
    ("name", "content", "why"),
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
def test_a_file_that_somebody_wrote_is_told_in_a_line(tmp_path, name, content, why):
    """With the right SHA-256 in the manifest, so that its content is looked at; and the one before is offered."""
    folder = tmp_path / "checkpoints"
    for step in (2, 3):
        save_checkpoint(folder, made(step))
    (folder / "3" / name).write_text(content)
    if name != "manifest.json":
        sums = json.loads((folder / "3" / "manifest.json").read_text())
        sums[name] = hashlib.sha256(content.encode()).hexdigest()
        (folder / "3" / "manifest.json").write_text(json.dumps(sums))
    with pytest.raises(InputError) as caught:
        restore_snapshot(folder, like(made()))
    assert str(caught.value).startswith(f"the checkpoint {folder}/3 is damaged ({why}")
    assert str(caught.value).endswith(f"): delete {folder}/3 to use {folder}/2, which is intact")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path, monkeypatch):
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
    with monkeypatch.context() as patch:  # root may read anything
        patch.setattr(os, "listdir", denied)
        with pytest.raises(InputError, match=f"^the checkpoints in {folder} cannot be read: Permission denied$"):
            restore_snapshot(folder, like(made()))
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InputError, match=f"^{folder}/3/manifest.json cannot be read: Permission denied$"):
        restore_snapshot(folder, like(made()))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_snapshot_has_the_records_that_were_its_own(tmp_path, monkeypatch, seed):
    """Epochs, kills (in the middle of a line, too), returns to an older snapshot, a file that somebody deletes."""
    rng = random.Random(seed)
    now, saved, number = (), [], 0
    for _ in range(40):
        event = rng.choice(["epoch", "epoch", "epoch", "two epochs", "kill", "return", "delete", "again"])
        if event in ("kill", "return"):
            monkeypatch.setattr(history, "_last", None)  # another process
            if (tmp_path / "history.jsonl").exists() and rng.random() < 0.7:
                with (tmp_path / "history.jsonl").open("ab") as file:
                    file.write(b'{"epoch": 99, "loss": 0.123}\n{"epoch": 100'[: rng.randint(1, 42)])
            if saved:
                saved = saved[: rng.randint(1, len(saved))] if event == "return" else saved
                now = saved[-1][1]
        elif event == "delete" and saved:
            (tmp_path / "history.jsonl").unlink()
        elif event != "again":
            for _ in range(1 + (event == "two epochs")):
                number += 1
                now = (*now, {"epoch": len(now) + 1, "loss": rng.random(), "epoch_seconds": number})
        if event not in ("kill", "return"):
            saved.append((history.write_history(tmp_path, now), now))
        if (tmp_path / "history.jsonl").exists():
            for part, own in saved:
                assert history.read_history(tmp_path, part) == own
    assert number > 10


def test_an_epoch_adds_a_line_and_no_more(tmp_path):
    save_checkpoint(tmp_path, made(1))
    lines, sizes = tmp_path / "history.jsonl", []
    inode = lines.stat().st_ino
    for step in range(2, 40):
        before = lines.read_bytes()
        save_checkpoint(tmp_path, made(step))
        assert lines.read_bytes().startswith(before) and lines.stat().st_ino == inode
        sizes.append((tmp_path / str(step) / "progress.json").stat().st_size)
    assert max(sizes) - min(sizes) < 5  # digits of the length
    assert [json.loads(line) for line in lines.read_text().splitlines()] == list(records(39))


def test_a_record_that_its_owner_changes_later_is_written_as_it_is(tmp_path):
    record = {"epoch": 1, "dead_layers": []}
    history.write_history(tmp_path, (record,))
    record["dead_layers"].append("relu1")
    part = history.write_history(tmp_path, (record,))
    assert history.read_history(tmp_path, part) == ({"epoch": 1, "dead_layers": ["relu1"]},)


def test_damage_to_the_history_is_told_where_it_matters(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, made(step), max_to_keep=3)
    lines = tmp_path / "history.jsonl"
    flip(lines, lines.stat().st_size - 20)  # in the last record, which the second does not have
    with pytest.raises(InputError, match=r"3 is damaged \(history.jsonl has changed\): delete .*/3 to use .*/2, "):
        restore_snapshot(tmp_path, like(made()))
    jax.tree.map(np.testing.assert_array_equal, restore_best(tmp_path, like(made())[1]), made(3).best)
    lines.unlink()
    with pytest.raises(InputError, match=r"3 is damaged \(history.jsonl is missing\): no other checkpoint is intact"):
        restore_snapshot(tmp_path, like(made()))


def test_a_snapshot_of_an_older_version_is_refused(tmp_path):
    save_checkpoint(tmp_path, made(2))
    for old, new in (("position.json", "progress.json"), ("train.npz", "train_state.npz")):
        (tmp_path / "2" / new).rename(tmp_path / "2" / old)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files(tmp_path / "2")}
    (tmp_path / "2" / "manifest.json").write_text(json.dumps(sums))
    with pytest.raises(InputError, match=r"^the checkpoint .*2 was written by an older jaxconv: train again$"):
        restore_snapshot(tmp_path, like(made()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "uint2", "bool", "complex64", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2)])
def test_every_dtype_and_shape_comes_back(dtype, shape):
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
    file = io.BytesIO()
    write_arrays(file, {"a": {"b.npy": array}})
    found = read_arrays(file)["a/b.npy"]
    assert found.dtype == array.dtype and found.shape == shape and found.tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_random_keys_come_back(tmp_path, kind):
    keys = jax.random.split(jax.random.key(5, impl=kind), 3)
    snapshot = made()
    snapshot = snapshot._replace(train_state=snapshot.train_state._replace(state={"noise": keys}))
    save_checkpoint(tmp_path, snapshot)
    found = restore_snapshot(tmp_path, jax.eval_shape(lambda: snapshot[:2])).train_state.state["noise"]
    assert found.dtype == keys.dtype and bool((found == keys).all())


def test_two_arrays_of_one_path_are_refused():
    with pytest.raises(InputError, match=r"^two arrays have the same path"):
        write_arrays(io.BytesIO(), {"a/b": np.ones(1), "a": {"b": np.ones(2)}})


def test_an_archive_that_would_swell_is_refused():
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(10**6))
    with pytest.raises(InputError, match=r"^x.npy is compressed$"):
        read_arrays(file)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": (10**18,), "fortran_order": False, "descr": "<f4"})
    with pytest.raises(InputError, match=r"^not an archive of arrays: "):
        read_arrays(file)


def test_what_lies_where_a_snapshot_is_to_be_written_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "else").mkdir()
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "partial-3").symlink_to(tmp_path / "else")
    (folder / "partial-1").write_text("")
    save_checkpoint(folder, made(3))
    assert_same(restore_snapshot(folder, like(made())), made(3))
    assert not list((tmp_path / "else").iterdir()) and {path.name for path in folder.iterdir()} == {
        "3",
        "history.jsonl",
    }


def test_saves_leave_no_memory_behind(tmp_path):
    """Those of orbax left 50 to 100 kB each: 5 to 10 MB in these hundred."""
    program = Path(__file__).parents[1] / "helpers" / "attack" / "saves.py"
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else str(tmp_path)  # a disk is slow, and is not what is measured
    done = subprocess.run(
        [sys.executable, program, "--saves", "150", "--every", "50", "--folder", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = [float(line.split()[2]) for line in done.stdout.splitlines()]
    assert len(sizes) == 3 and sizes[-1] - sizes[0] < 1.5, done.stdout


def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_snapshot(tmp_path):
    """At moments that nobody chose, most of them within a write; each process looks at what the one before left."""
    program = Path(__file__).parents[1] / "helpers" / "attack" / "save_kills.py"
    subprocess.run([sys.executable, program, "--kills", "8", "--folder", tmp_path], check=True)
