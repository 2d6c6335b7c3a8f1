"""Read and write files so that a crash, a full disk or a symbolic link does no harm.

Every file that jaxconv writes goes through :func:`writing`, and every JSON file of its own that it reads through
:func:`read_json`.
"""

import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from jaxconv.errors import InputError

MAX_JSON_BYTES = 64 * 2**20


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; it takes its name when the block ends without an error.

    The bytes go to a new file beside ``path``, then to the disk, and then the new file is renamed. So ``path`` is
    whole or what it was, after a crash or a power cut too. A symbolic link in its place is replaced, not followed.

    Raises:
        InputError: ``path`` cannot be written, or is a folder, a device or a pipe.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> with writing(path) as file:
    ...     _ = file.write(b"42")
    >>> path.read_text()
    '42'
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        with write_errors(path):
            _check_replaceable(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise an ``InputError`` that names ``path`` where the block raises an ``OSError``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file, as :func:`writing` does; text as UTF-8.

    Raises:
        InputError: as :func:`writing`.
    """
    with writing(path) as file:
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write a value as JSON, as :func:`writing` does.

    Raises:
        InputError: as :func:`writing`; a value that JSON does not have, such as NaN.
    """
    write_file(path, to_json(content, indent=2) + "\n")


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file, as one line of JSON, and to the disk.

    Raises:
        InputError: the file cannot be written, or is a symbolic link, a device or a pipe; a value that JSON does not
            have, such as NaN.
    """
    line = to_json(record) + "\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with write_errors(path), os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"{path} cannot be written: it is not a file")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as lines of JSON, as :func:`writing` does.

    Raises:
        InputError: as :func:`write_json`.
    """
    write_file(path, "".join(to_json(record) + "\n" for record in records))


def make_folder(folder: Path, *, new: bool = False) -> None:
    """Make a folder and those above it, where they do not exist.

    Args:
        folder: its path. A symbolic link to a folder counts as one.
        new: raise ``FileExistsError`` if it exists.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        if new and isinstance(error, FileExistsError):
            raise
        raise InputError(f"the folder {folder} cannot be made: {error.strerror or error}") from None


def refuse_link(folder: Path) -> None:
    """Refuse a symbolic link where a folder is written into.

    A run folder may come from a stranger: what is written into it stays in it.

    Raises:
        InputError: ``folder`` is a symbolic link.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a symbolic link, and nothing is written through it: put a folder in its place")


def to_json(content: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """A value as JSON; paths as text.

    Args:
        content: the value.
        indent: spaces a level; None writes one line.
        default: makes a value of JSON of any other; by default only paths are taken.

    Raises:
        InputError: a value that JSON does not have, such as NaN.

    >>> to_json({"loss": 0.5})
    '{"loss": 0.5}'
    """
    try:
        return json.dumps(content, indent=indent, default=default or _path_as_text, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{content!r:.200} does not go into JSON: {error}") from None


def read_json(path: Path, kind: Any = Any) -> Any:
    """Read a JSON file of a stated type.

    Args:
        path: of at most 64 MiB.
        kind: a type: a dataclass, a ``TypedDict``, ``dict[str, float]``, ``Annotated[int, msgspec.Meta(ge=1)]``.
            The content is checked and converted, ranges too.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, is too large or too deep, is not JSON, or is of another type.
    """
    return from_dict(read_bytes(path, MAX_JSON_BYTES), kind, name=str(path))


def from_dict(text: bytes | str, kind: Any = Any, *, name: str) -> Any:
    """A value from JSON, checked as :func:`read_json` does; ``name`` is what an error calls the text.

    >>> from_dict('{"size": "big"}', dict[str, int], name="config.json")
    Traceback (most recent call last):
    jaxconv.errors.InputError: config.json is damaged: Expected `int`, got `str` - at `$[...]`
    """
    # Not msgspec's parser: it refuses the lone surrogates that stand for bytes of a file name that are no UTF-8.
    try:
        content = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {error}") from None
    return as_type(content, kind, name=name)


def as_type(content: Any, kind: Any, *, name: str) -> Any:
    """A value out of JSON, checked and converted to a type; ``name`` is what an error calls it.

    Raises:
        InputError: the value is of another type, or out of its range.

    >>> as_type({"runs": "mine"}, dict[str, Path], name="config.json")["runs"].name
    'mine'
    """
    try:
        return msgspec.convert(content, kind, dec_hook=_text_as_path)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:  # the second of a surrogate
        raise InputError(f"{name} is damaged: {error}") from None


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most ``most`` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, is a folder, a device or a pipe, or is larger.
    """
    with open_file(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise InputError(f"{path} is larger than {most:,} bytes")
    return content


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read. A pipe, which would wait for a writer, is refused at once.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, or is a folder, a device or a pipe.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise InputError(f"{path} is not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path} is not a file")
    return file


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a rename in it survives a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_replaceable(path: Path) -> None:
    """Refuse what a rename would destroy though it is no file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise InputError(f"{path} cannot be written: it is not a file")


def _path_as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _text_as_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_number(text)
    return value


def _refuse_number(text: str) -> None:
    raise ValueError(f"{text:.20} is no number of JSON")


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        InputError: it is a folder, or in none that is there.
    """
    if path and path.is_dir():
        raise InputError(f"{option} {path} is a folder: name a file in it")
    if path and not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}")
