"""Files: atomic writes, symbolic links, typed JSON and size limits; escaping of text for the terminal."""

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.utils import files
from jaxconv.utils.terminal import printable
from toy_training import RECORD


def test_append_jsonl_and_write_jsonl(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        files.append_jsonl(path, RECORD | {"epoch": epoch})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[0]) == RECORD
    with path.open("a") as lines:
        lines.write('{"epoch": 4, "lo')  # a process killed in the middle of a line
    files.write_jsonl(path, [RECORD, RECORD | {"epoch": 2}])
    files.append_jsonl(path, RECORD | {"epoch": 3})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]
    files.write_jsonl(path, [])
    assert path.read_text() == "" and [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_write_jsonl_on_full_disk_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    files.append_jsonl(path, RECORD)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written: No space left on device"):
        files.write_jsonl(path, [])
    assert json.loads(path.read_text()) == RECORD and len(list(tmp_path.iterdir())) == 1


def test_invalid_json_value_raises_before_writing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_jsonl(path, RECORD)
    for invalid in (float("nan"), np.float32(1)):
        with pytest.raises(InputError, match=r"\{'epoch': 2, 'loss': .*\} cannot be written as JSON: "):
            files.append_jsonl(path, {"epoch": 2, "loss": invalid})
        with pytest.raises(InputError, match="cannot be written as JSON"):
            files.write_jsonl(path, [RECORD, {"epoch": 2, "loss": invalid}])
    assert json.loads(path.read_text()) == RECORD
    with pytest.raises(InputError, match=r"no/metrics\.jsonl cannot be written: No such file or directory"):
        files.append_jsonl(tmp_path / "no" / "metrics.jsonl", RECORD)


WRITERS = [
    lambda path: files.write_file(path, "new"),
    lambda path: files.write_json(path, {}),
    lambda path: files.write_jsonl(path, []),
    lambda path: files.append_jsonl(path, {}),
]


@pytest.mark.parametrize("write", WRITERS)
def test_writers_do_not_follow_links(tmp_path, write):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("unchanged")
    link.symlink_to(target)
    if write is WRITERS[-1]:
        with pytest.raises(InputError, match="link cannot be written: Too many levels of symbolic links"):
            write(link)
    else:
        write(link)
        assert not link.is_symlink()
    assert target.read_text() == "unchanged" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("create", [Path.mkdir, os.mkfifo])
def test_writers_do_not_replace_folders_or_pipes(tmp_path, write, create):
    path = tmp_path / "file"
    create(path)
    with pytest.raises(InputError, match="file cannot be written: "):
        write(path)
    assert not path.is_file() and len(list(tmp_path.iterdir())) == 1


def test_writing_keeps_old_file_on_error(tmp_path):
    path = tmp_path / "file"
    files.write_file(path, "old")
    with pytest.raises(RuntimeError), files.writing(path) as file:
        file.write(b"part of the n")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@dataclasses.dataclass
class Options:
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]
    folder: Path | None = None
    names: tuple[str, ...] = ()


def test_read_json_validates_type(tmp_path):
    path = tmp_path / "options.json"
    files.write_json(path, {"count": 3, "folder": tmp_path, "names": ["a", "b\udcff"]})  # a byte that is not UTF-8
    assert files.read_json(path, Options) == Options(3, tmp_path, ("a", "b\udcff"))
    for text, message in [
        ('{"count": 0}', "is damaged: Expected `int` >= 1 - at `$.count`"),
        ('{"count": true}', "is damaged: Expected `int`, got `bool` - at `$.count`"),
        ('{"count": 1, "folder": 5}', "is damaged: Expected `Path`, got `int` - at `$.folder`"),
        ('{"count": 1, "names": [1]}', "is damaged: Expected `str`, got `int` - at `$.names[0]`"),
        ("{}", "is damaged: Object missing required field `count`"),
        ('{"count": NaN}', "is not JSON: NaN is not a JSON number"),
        ('{"count": -1e999}', "is not JSON: -1e999 is not a JSON number"),
        ("[" * 100_000, "is not JSON: "),
        ('{"count": ' + "9" * 5000 + "}", "is not JSON: "),
        ("", "is not JSON: "),
    ]:
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            files.read_json(path, Options)
        assert str(caught.value).startswith(f"{path} {message}") and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "none")


def test_writing_syncs_file_then_renames_then_syncs_folder(tmp_path, monkeypatch):
    """In another order, a power failure could leave the new name with an empty file."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def record_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert calls == ["file", "rename", "folder"]


def test_write_file_uses_default_permissions(tmp_path):
    files.write_file(tmp_path / "atomic", "Löwe")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "atomic").read_bytes() == "Löwe".encode()


def test_read_bytes_limits_size_and_rejects_other_files(tmp_path):
    path, pipe = tmp_path / "a", tmp_path / "pipe"
    path.write_bytes(b"x" * 10)
    os.mkfifo(pipe)
    assert files.read_bytes(path, 10) == b"x" * 10
    for source, message in [
        (path, "a is larger than 9 bytes"),
        (tmp_path, "is not a file"),
        (pipe, "pipe is not a file"),  # without waiting for a writer
        (Path("/dev/zero"), "/dev/zero is not a file"),
    ]:
        with pytest.raises(InputError, match=message):
            files.read_bytes(source, 9)


def test_printable_escapes_control_characters():
    assert printable("\x1b[2J\r\x07\x9b") == r"\x1b[2J\r\x07\x9b"
    assert printable("a\u202eb\u2028\u200b") == r"a\u202eb\u2028\u200b"
    assert printable("\udcff") == r"\udcff"
    assert printable("Zoë, 猫, 🐈 [/red] $x$") == "Zoë, 猫, 🐈 [/red] $x$"
