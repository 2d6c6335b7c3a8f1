"""Find the official files of a dataset on this machine, or download them from a mirror.

A file is searched in ``$JAXCONV_DATA/<dataset>/``, then in the cache folder. A missing file is downloaded from the
first mirror that works into ``$JAXCONV_DATA``, or into the cache folder if that is not set. A file is used only if its
SHA-256 matches the official one. A download has a temporary name until it is verified, so a failed one leaves no file.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxconv.errors import InputError
from jaxconv.utils.files import writing
from jaxconv.utils.progress import progress_bar

CONNECT_TIMEOUT = 4.0  # seconds
READ_TIMEOUT = 6.0  # seconds between two chunks
GRACE_SECONDS = 6.0  # before MIN_BYTES_PER_SECOND is enforced
MIN_BYTES_PER_SECOND = 20_000


class File(NamedTuple):
    """Size in bytes and SHA-256 of an official file."""

    size: int
    sha256: str


class Source(NamedTuple):
    """Official files of a dataset and the mirrors that serve them, the preferred one first."""

    name: str
    mirrors: tuple[str, ...]
    files: Mapping[str, File]
    unpacked: tuple[str, ...] = ()  # alternative folders of unpacked files, one of which suffices


def cache_dir() -> Path:
    """Return the cache folder, for files that can be downloaded or created again.

    Raises:
        InputError: if the user has no home folder, as in some containers.
    """
    import pooch

    try:
        return Path(pooch.os_cache("jaxconv")).expanduser()
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set XDG_CACHE_HOME or HOME") from None


def search_dirs(name: str) -> list[Path]:
    """Return the folders that are searched for a dataset's files; downloads go to the first.

    Raises:
        InputError: if there is no home folder, unless ``$JAXCONV_DATA`` is set to a path without ``~``.
    """
    data_dir = os.environ.get("JAXCONV_DATA")
    try:
        roots = [Path(data_dir).expanduser()] if data_dir else []
    except RuntimeError:
        raise InputError(f"JAXCONV_DATA is {data_dir}, but there is no such home folder: give it without ~") from None
    try:
        roots.append(cache_dir())
    except InputError as error:
        if not data_dir:
            raise InputError(f"{error}, or JAXCONV_DATA") from None
    return [root / name for root in roots]


def ensure_file(source: Source, filename: str) -> Path:
    """Return the path of a verified official file, downloading it if necessary.

    Raises:
        InputError: if the file exists but is damaged, or is missing and no mirror serves it.
    """
    path = find_local(source, filename)
    if path is None:
        return _download(source, filename)
    if error := integrity_error(path, source.files[filename]):
        raise InputError(f"{path} {error}: delete it, and it will be downloaded again")
    return path


def find_local(source: Source, filename: str) -> Path | None:
    """Return the path of a file on this machine without verifying it, or None."""
    paths = (folder / filename for folder in search_dirs(source.name))
    return next((path for path in paths if path.is_file()), None)


def find_extracted(source: Source) -> Path | None:
    """Return the folder of unpacked files, in a search folder or its parent, without verifying it, or None."""
    parents = (parent for folder in search_dirs(source.name) for parent in (folder, folder.parent))
    paths = (parent / name for parent in parents for name in source.unpacked)
    return next((path for path in paths if path.is_dir()), None)


def integrity_error(path: Path, expected: File) -> str | None:
    """Return a description of the damage to a file, such as "is cut short: …", or None if it is the official file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        start = file.read(64).lstrip()
    if digest == expected.sha256:
        return None
    size = path.stat().st_size
    if start[:1] == b"<":
        return "is a web page, not data (an error page that was saved under this name?)"
    if size < expected.size:
        return f"is cut short: {size:,} of {expected.size:,} bytes"
    return f"is corrupted: its sha256 is {digest[:12]}…, not {expected.sha256[:12]}…"


class _MirrorError(Exception):
    """Failure of one mirror to serve the official file; the message is the reason."""


def _download(source: Source, filename: str) -> Path:
    """Try the mirrors in order; return the path of the verified file."""
    folder, expected = search_dirs(source.name)[0], source.files[filename]
    failures = []
    for mirror in source.mirrors:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with writing(folder / filename) as file:
                _fetch(mirror + filename, expected, file, f"{source.name}/{filename}")
            return folder / filename
        except _MirrorError as error:
            failures.append(f"{mirror} ({error})")
        except (OSError, InputError) as error:
            reason = str(error) if isinstance(error, InputError) else f"{folder / filename} cannot be written: {error}"
            raise InputError(f"{reason}; set JAXCONV_DATA to a writable folder") from None
    raise InputError(
        f"{source.name}: {filename} could not be downloaded. Tried {'; '.join(failures)}. "
        f"Check the network, or put the file into {folder} yourself"
    )


def _fetch(url: str, expected: File, file: BinaryIO, title: str) -> None:
    """Download ``url`` into ``file`` with a progress bar, and verify its size and SHA-256.

    Raises:
        _MirrorError: if the mirror is unreachable or slow, stops early, or sends another file.
        OSError: if the file cannot be written.
    """
    import requests
    import urllib3

    digest, num_bytes, size = hashlib.sha256(), 0, 0
    try:
        with (
            requests.get(
                url, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), headers={"Accept-Encoding": "identity"}
            ) as response,
            progress_bar("bytes", "speed") as progress,
        ):
            response.raise_for_status()
            length = response.headers.get("content-length", "")
            size = int(length) if length.isdecimal() else 0
            task = progress.add_task(title, total=expected.size)
            start = time.monotonic()
            while chunk := response.raw.read1(1 << 16):
                file.write(chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
                progress.update(task, completed=num_bytes)
                seconds = time.monotonic() - start
                if seconds > GRACE_SECONDS and num_bytes / seconds < MIN_BYTES_PER_SECOND:
                    raise _MirrorError(f"too slow: {num_bytes:,} bytes in {seconds:.0f} s")
                if num_bytes > expected.size:
                    raise _MirrorError(f"more than the official {expected.size:,} bytes")
    except urllib3.exceptions.ReadTimeoutError:
        raise _MirrorError("no answer in time") from None
    except urllib3.exceptions.HTTPError:
        pass  # a broken connection is reported below, with the number of bytes received
    except requests.RequestException as error:
        raise _MirrorError(_reason(error)) from None
    if num_bytes < size:
        raise _MirrorError(f"cut off after {num_bytes:,} of {size:,} bytes")
    if digest.hexdigest() != expected.sha256:
        raise _MirrorError("not the official file: wrong sha256")


def _reason(error: Exception) -> str:
    """Return a short description of a ``requests`` error."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
