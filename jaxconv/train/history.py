"""History of training beside the checkpoints: one file, to which every epoch appends a line.

A checkpoint stores the number of bytes of the file that belong to it, and their SHA-256. So a process killed while it
writes a line damages no checkpoint, and the size of a checkpoint does not grow with the number of epochs.
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


class HistoryPrefix(TypedDict):
    """Length and SHA-256 of the beginning of the file that belongs to a checkpoint."""

    bytes: Annotated[int, Meta(ge=0)]
    sha256: str


class _Written(NamedTuple):
    """Content written by this process, cached so that it is not read again."""

    path: Path
    records: Records
    size: int
    digest: Any  # hashlib object over the whole file


_last: _Written | None = None


def write_history(folder: Path, records: Records) -> HistoryPrefix:
    """Make the file contain exactly these records.

    New records are appended to those that this process wrote before. In a new process, or if the length of the file
    has changed, the whole file is compared with the records, and replaced if it differs.

    Raises:
        InputError: if the file cannot be written, or a record is not JSON-serializable.
    """
    global _last
    path = (folder / NAME).absolute()
    last, _last = _last, None  # after an error, the whole file is compared
    appends = last is not None and _is_prefix(last, path, records)
    previous = last if last is not None and appends else _Written(path, (), 0, hashlib.sha256())
    added = copy.deepcopy(records[len(previous.records) :])  # the caller may modify its records
    lines = "".join(to_json(record) + "\n" for record in added).encode()
    if appends:
        for record in added:
            append_jsonl(path, record)
    elif _size(path) != len(lines) or read_bytes(path, len(lines)) != lines:
        write_file(path, lines)
    previous.digest.update(lines)
    _last = _Written(path, previous.records + added, previous.size + len(lines), previous.digest)
    return HistoryPrefix(bytes=_last.size, sha256=_last.digest.hexdigest())


def read_history(folder: Path, prefix: HistoryPrefix) -> Records:
    """Read the records that belong to a checkpoint.

    Raises:
        FileNotFoundError: if there is no history file.
        InputError: if it cannot be read, is shorter than the prefix, or has another SHA-256.
    """
    path = folder / NAME
    with open_file(path) as file:
        lines = file.read(min(prefix["bytes"], _size(path) or 0))
    if len(lines) < prefix["bytes"]:
        raise InputError(f"{NAME} is cut short")
    if hashlib.sha256(lines).hexdigest() != prefix["sha256"]:
        raise InputError(f"{NAME} has changed")
    return tuple(from_dict(line, dict[str, Any], name=NAME) for line in lines.splitlines())


def _is_prefix(written: _Written, path: Path, records: Records) -> bool:
    """Return True if the file has the length it was written with, and holds the first of these records."""
    is_beginning = written.records == records[: len(written.records)]
    return is_beginning and written.path == path and written.size == _size(path)


def _size(path: Path) -> int | None:
    return path.lstat().st_size if path.exists() else None
