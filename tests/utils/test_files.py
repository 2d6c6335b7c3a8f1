"""Files: whole or as they were, never through a link, JSON of a stated type; text that steers no terminal."""

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


def test_lines_are_added_and_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        files.append_jsonl(path, RECORD | {"epoch": epoch})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[0]) == RECORD
    with path.open("a") as lines:
        lines.write('{"epoch": 4, "lo')  # killed in the middle of a line
    files.write_jsonl(path, [RECORD, RECORD | {"epoch": 2}])
    files.append_jsonl(path, RECORD | {"epoch": 3})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]
    files.write_jsonl(path, [])
    assert path.read_text() == "" and [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    files.append_jsonl(path, RECORD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written: No space left on device"):
        files.write_jsonl(path, [])
    assert json.loads(path.read_text()) == RECORD and len(list(tmp_path.iterdir())) == 1


def test_what_json_cannot_say_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_jsonl(path, RECORD)
    for bad in (float("nan"), np.float32(1)):
        with pytest.raises(InputError, match=r"\{'epoch': 2, 'loss': .*\} does not go into JSON: "):
            files.append_jsonl(path, {"epoch": 2, "loss": bad})
        with pytest.raises(InputError, match="does not go into JSON"):
            files.write_jsonl(path, [RECORD, {"epoch": 2, "loss": bad}])
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
def test_a_link_is_never_written_through(tmp_path, write):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    if write is WRITERS[-1]:
        with pytest.raises(InputError, match="link cannot be written: Too many levels of symbolic links"):
            write(link)
    else:
        write(link)
        assert not link.is_symlink()
    assert target.read_text() == "precious" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(tmp_path, write, make):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(InputError, match="file cannot be written: "):
        write(path)
    assert not path.is_file() and len(list(tmp_path.iterdir())) == 1


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_file(path, "old")
    with pytest.raises(RuntimeError), files.writing(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@dataclasses.dataclass
class Options:
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]
    place: Path | None = None
    names: tuple[str, ...] = ()


def test_json_has_the_type_that_is_stated(tmp_path):
    path = tmp_path / "options.json"
    files.write_json(path, {"count": 3, "place": tmp_path, "names": ["a", "b\udcff"]})  # a byte that is no UTF-8
    assert files.read_json(path, Options) == Options(3, tmp_path, ("a", "b\udcff"))
    for text, message in [
        ('{"count": 0}', "is damaged: Expected `int` >= 1 - at `$.count`"),
        ('{"count": true}', "is damaged: Expected `int`, got `bool` - at `$.count`"),
        ('{"count": 1, "place": 5}', "is damaged: Expected `Path`, got `int` - at `$.place`"),
        ('{"count": 1, "names": [1]}', "is damaged: Expected `str`, got `int` - at `$.names[0]`"),
        ("{}", "is damaged: Object missing required field `count`"),
        ('{"count": NaN}', "is not JSON: NaN is no number of JSON"),
        ('{"count": -1e999}', "is not JSON: -1e999 is no number of JSON"),
        ("[" * 100_000, "is not JSON: "),
        ('{"count": ' + "9" * 5000 + "}", "is not JSON: "),
        ("", "is not JSON: "),
    ]:
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            files.read_json(path, Options)
        assert str(refused.value).startswith(f"{path} {message}") and "\n" not in str(refused.value)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "none")


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """Else a power cut leaves the new name with an empty file; the folder comes last."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert calls == ["file", "rename", "folder"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    files.write_file(tmp_path / "ours", "Löwe")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "ours").read_bytes() == "Löwe".encode()


def test_a_file_is_read_up_to_a_size_and_nothing_else_is_read(tmp_path):
    path, pipe = tmp_path / "a", tmp_path / "pipe"
    path.write_bytes(b"x" * 10)
    os.mkfifo(pipe)
    assert files.read_bytes(path, 10) == b"x" * 10
    for source, message in [
        (path, "a is larger than 9 bytes"),
        (tmp_path, "is not a file"),
        (pipe, "pipe is not a file"),  # and nothing waits for a writer
        (Path("/dev/zero"), "/dev/zero is not a file"),
    ]:
        with pytest.raises(InputError, match=message):
            files.read_bytes(source, 9)


def test_text_of_others_cannot_steer_a_terminal():
    assert printable("\x1b[2J\r\x07\x9b") == r"\x1b[2J\r\x07\x9b"
    assert printable("a\u202eb\u2028\u200b") == r"a\u202eb\u2028\u200b"
    assert printable("\udcff") == r"\udcff"
    assert printable("Zoë, 猫, 🐈 [/red] $x$") == "Zoë, 猫, 🐈 [/red] $x$"
