"""The records of the epochs beside the snapshots, in one file to which each epoch adds a line.

A snapshot holds how many bytes of the file are its own, and their SHA-256. So a kill while a line is written harms no
snapshot, and what a snapshot writes does not grow with the number of epochs.
"""

import copy
import hashlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from msgspec import Meta

from jaxconv.errors import InputError
from jaxconv.utils.files import append_jsonl, from_dict, open_file, read_bytes, to_json, write_file

NAME = "history.jsonl"
Records = tuple[dict[str, Any], ...]


class Part(TypedDict):
    """The beginning of the file, which belongs to a snapshot."""

    bytes: Annotated[int, Meta(ge=0)]
    sha256: str


class _Written(NamedTuple):
    """What this process has written, so that it need not look at all of it again."""

    path: Path
    records: Records
    size: int
    digest: Any  # hashlib's, over all of it


_last: _Written | None = None


def write_history(folder: Path, records: Records) -> Part:
    """Make the file hold these records and no other.

    Those that this process wrote before stay, and the new ones are appended. In a new process, or if the file is not
    as long as what was written, all of it is compared with the records, and replaced if it differs.

    Raises:
        InputError: it cannot be written, or a record does not go into JSON.
    """
    global _last
    path = (folder / NAME).absolute()
    last, _last = _last, None  # after an error, all of it is compared
    appends = last is not None and _is_beginning(last, path, records)
    old = last if last is not None and appends else _Written(path, (), 0, hashlib.sha256())
    new = copy.deepcopy(records[len(old.records) :])  # the caller may change its own
    lines = "".join(to_json(record) + "\n" for record in new).encode()
    if appends:
        for record in new:
            append_jsonl(path, record)
    elif _size(path) != len(lines) or read_bytes(path, len(lines)) != lines:
        write_file(path, lines)
    old.digest.update(lines)
    _last = _Written(path, old.records + new, old.size + len(lines), old.digest)
    return Part(bytes=_last.size, sha256=_last.digest.hexdigest())


def read_history(folder: Path, part: Part) -> Records:
    """The records that belong to a snapshot.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, is shorter, or is not what was written.
    """
    path = folder / NAME
    with open_file(path) as file:
        lines = file.read(min(part["bytes"], _size(path) or 0))
    if len(lines) < part["bytes"]:
        raise InputError(f"{NAME} is cut short")
    if hashlib.sha256(lines).hexdigest() != part["sha256"]:
        raise InputError(f"{NAME} has changed")
    return tuple(from_dict(line, dict[str, Any], name=NAME) for line in lines.splitlines())


def _is_beginning(written: _Written, path: Path, records: Records) -> bool:
    """Whether the file is still as long as it was written, and holds the first of these records."""
    same = written.records == records[: len(written.records)]
    return same and written.path == path and written.size == _size(path)


def _size(path: Path) -> int | None:
    return path.lstat().st_size if path.exists() else None
