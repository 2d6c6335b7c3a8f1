"""Files are written whole, through no symbolic link; JSON of ours is checked when it is read."""

import json
import os
import stat
from typing import Annotated

import msgspec
import pytest

from jaxconv.errors import InputError
from jaxconv.utils import files
from jaxconv.utils.text import printable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "a.txt"
    files.write_file(path, "Löwe\n")
    assert path.read_bytes() == "Löwe\n".encode()
    files.write_file(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    files.write_file(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("mine")])
def test_a_file_is_what_it_was_after_an_error(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(InputError if isinstance(failure, OSError) else type(failure)), files.writing(path) as file:
        file.write(b"half")
        raise failure
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


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


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    files.write_file(link, "new")
    assert victim.read_text() == "precious" and link.read_text() == "new" and not link.is_symlink()


def test_lines_are_appended_but_not_through_a_symbolic_link(tmp_path):
    path, victim, link = tmp_path / "a.jsonl", tmp_path / "victim", tmp_path / "link"
    for epoch in (1, 2):
        files.append_jsonl(path, {"epoch": epoch})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"epoch": 1}, {"epoch": 2}]
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(InputError, match="link cannot be written"):
        files.append_jsonl(link, {"epoch": 1})
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_neither_replaced_nor_read(tmp_path, make):
    path = tmp_path / "a"
    make(path)
    with pytest.raises(InputError, match=r"a cannot be written"):
        files.write_file(path, "x")
    with pytest.raises(InputError, match=r"a (is not a file|cannot be read)"):
        files.read_bytes(path, 10)
    assert names(tmp_path) == ["a"]


def test_a_device_is_no_file(tmp_path):
    with pytest.raises(InputError, match="/dev/zero is not a file"):
        files.read_bytes("/dev/zero", 10)


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert files.read_bytes(path, 10) == b"x" * 10
    with pytest.raises(InputError, match="a is larger than 9 bytes"):
        files.read_bytes(path, 9)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        files.write_file(tmp_path / "nowhere" / "a", "x")
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "nowhere")


class Config(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=1, le=100)]
    names: list[str]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ('{"size": NaN, "names": []}', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        ('{"size": 0, "names": []}', r">= 1 - at `\$.size`"),
        ('{"size": 1e300, "names": []}', r"`\$.size`"),
        ('{"size": 1e400, "names": []}', "1e400 is too large"),
        ('{"size": 1' + "0" * 30 + ', "names": []}', r"`\$.size`"),
        ('{"size": 1' + "0" * 10_000 + ', "names": []}', "is not JSON"),
        ('{"size": true, "names": []}', r"got `bool` - at `\$.size`"),
        ('{"size": 5, "names": [5]}', r"got `int` - at `\$.names\[0\]`"),
        ('{"names": []}', "missing required field `size`"),
        ("[]", "Expected `object`, got `array`"),
    ],
    ids=range(14),
)
def test_json_of_another_type_is_refused(tmp_path, text, fault):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=fault) as error:
        files.read_json(path, Config)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_json_comes_back(tmp_path):
    path = tmp_path / "config.json"
    files.write_json(path, {"size": 5, "names": ["Löwe", "\ud800"], "folder": tmp_path})
    assert files.read_json(path, Config) == Config(5, ["Löwe", "\ud800"])


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_what_json_does_not_have_is_refused(tmp_path, content):
    with pytest.raises(InputError, match="does not go into JSON"):
        files.write_json(tmp_path / "a.json", content)
    assert names(tmp_path) == []


def test_text_of_others_cannot_steer_a_terminal():
    assert printable("\x1b[2J\r\x07\x9b") == r"\x1b[2J\r\x07\x9b"
    assert printable("a\u202eb\u2028\u200b") == r"a\u202eb\u2028\u200b"
    assert printable("\udcff") == r"\udcff" and printable("\udcff").encode()
    assert printable("Zoë, 猫, 🐈 [/red] $x$") == "Zoë, 猫, 🐈 [/red] $x$"
