"""Read and write files safely in case of a crash, a full disk or a symbolic link.

jaxconv writes all files with :func:`writing`, and reads its own JSON files with :func:`read_json`.
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
    """Open a file for atomic writing: ``path`` is replaced when the block ends without an error.

    The bytes are written to a temporary file beside ``path`` and synced to the disk; then the file is renamed. After a
    crash or a power failure ``path`` has its old or its complete new content. A symbolic link is replaced, not
    followed.

    Raises:
        InputError: if ``path`` cannot be written, or is a folder, a device or a pipe.

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
    """Convert an ``OSError`` of the block into an ``InputError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a complete file with :func:`writing`; text is encoded as UTF-8.

    Raises:
        InputError: as :func:`writing`.
    """
    with writing(path) as file:
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write a value as a JSON file with :func:`writing`.

    Raises:
        InputError: as :func:`writing`, or if JSON cannot represent the value, such as NaN.
    """
    write_file(path, to_json(content, indent=2) + "\n")


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file as one line of JSON, and sync it to the disk.

    Raises:
        InputError: if the file cannot be written, or is a symbolic link, a device or a pipe, or JSON cannot represent
            a value, such as NaN.
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
    """Write records as lines of JSON with :func:`writing`.

    Raises:
        InputError: as :func:`write_json`.
    """
    write_file(path, "".join(to_json(record) + "\n" for record in records))


def make_folder(folder: Path, *, new: bool = False) -> None:
    """Create a folder and its parents if they do not exist.

    Args:
        folder: path of the folder, or of a symbolic link to one.
        new: raise ``FileExistsError`` if the folder exists.

    Raises:
        InputError: if the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        if new and isinstance(error, FileExistsError):
            raise
        raise InputError(f"the folder {folder} cannot be created: {error.strerror or error}") from None


def refuse_link(folder: Path) -> None:
    """Raise InputError if ``folder`` is a symbolic link, so that files cannot be written outside of a run folder.

    A run folder may come from an untrusted source.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a symbolic link, which is not written through: replace it by a folder")


def to_json(content: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Serialize a value to JSON; paths become strings.

    Args:
        content: value to serialize.
        indent: spaces per level; None for a single line.
        default: function that converts other types to JSON values; by default only paths are converted.

    Raises:
        InputError: if JSON cannot represent a value, such as NaN.

    >>> to_json({"loss": 0.5})
    '{"loss": 0.5}'
    """
    try:
        return json.dumps(content, indent=indent, default=default or _path_as_text, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{content!r:.200} cannot be written as JSON: {error}") from None


def read_json(path: Path, kind: Any = Any) -> Any:
    """Read a JSON file, and validate and convert its content to a type.

    Args:
        path: file of at most 64 MiB.
        kind: type of the content, such as a dataclass, a ``TypedDict``, ``dict[str, float]`` or, with a range,
            ``Annotated[int, msgspec.Meta(ge=1)]``.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if the file cannot be read, is too large or too deeply nested, is not JSON, or has another type.
    """
    return from_dict(read_bytes(path, MAX_JSON_BYTES), kind, name=str(path))


def from_dict(text: bytes | str, kind: Any = Any, *, name: str) -> Any:
    """Parse JSON text and convert it to a type, like :func:`read_json`; ``name`` names the text in errors.

    >>> from_dict('{"size": "big"}', dict[str, int], name="config.json")
    Traceback (most recent call last):
    jaxconv.errors.InputError: config.json is damaged: Expected `int`, got `str` - at `$[...]`
    """
    # json instead of msgspec's parser, which rejects the lone surrogates that encode non-UTF-8 bytes of file names.
    try:
        content = json.loads(text, parse_constant=_reject_number, parse_float=_parse_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {error}") from None
    return as_type(content, kind, name=name)


def as_type(content: Any, kind: Any, *, name: str) -> Any:
    """Validate a JSON value and convert it to a type; ``name`` names the value in errors.

    Raises:
        InputError: if the value has another type, or is out of range.

    >>> as_type({"runs": "mine"}, dict[str, Path], name="config.json")["runs"].name
    'mine'
    """
    try:
        return msgspec.convert(content, kind, dec_hook=_text_as_path)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:  # UnicodeEncodeError: a surrogate
        raise InputError(f"{name} is damaged: {error}") from None


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes`` bytes.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if the file cannot be read, is a folder, a device or a pipe, or is larger.
    """
    with open_file(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > max_bytes:
        raise InputError(f"{path} is larger than {max_bytes:,} bytes")
    return content


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, without blocking on a pipe that has no writer.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if the file cannot be read, or is a folder, a device or a pipe.
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
    """Sync a folder's entries to the disk, so that a rename in it survives a power failure."""
    if os.name == "nt":  # Windows cannot sync folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_replaceable(path: Path) -> None:
    """Raise InputError if ``path`` exists and is neither a regular file nor a link; renaming would replace it."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise InputError(f"{path} cannot be written: it is not a file")


def _path_as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _text_as_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _reject_number(text)
    return value


def _reject_number(text: str) -> None:
    raise ValueError(f"{text:.20} is not a JSON number")


def check_writable(option: str, path: Path | None) -> None:
    """Check before a long computation that its output file can be written.

    Raises:
        InputError: if ``path`` is a folder, or its parent folder does not exist.
    """
    if path and path.is_dir():
        raise InputError(f"{option} {path} is a folder: name a file in it")
    if path and not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}")
