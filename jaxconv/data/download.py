"""Finding the official files of a data set: on this machine if they are there, from a mirror if they are not.

A file is looked for in ``$JAXCONV_DATA/<data set>/``, then in the cache folder. One that is nowhere is downloaded,
mirror after mirror, into ``$JAXCONV_DATA`` (the cache folder if that is not set). Whatever its way, a file is used
only if its SHA-256 is the official one; until then it has a temporary name, so a broken download leaves nothing.
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

CONNECT_SECONDS = 4.0  # to be answered at all
READ_SECONDS = 6.0  # between two pieces of data
PATIENCE_SECONDS = 6.0  # before a mirror is judged by its speed
LEAST_BYTES_A_SECOND = 20_000


class File(NamedTuple):
    size: int
    sha256: str


class Source(NamedTuple):
    """A data set's official files and the places that serve them, the best first."""

    name: str
    mirrors: tuple[str, ...]
    files: Mapping[str, File]
    unpacked: tuple[str, ...] = ()  # folders of unpacked files, one of which will do as well


def cache_dir() -> Path:
    """Where what can be had again is kept.

    Raises:
        InputError: a user without a home folder, as in some containers.
    """
    import pooch

    try:
        return Path(pooch.os_cache("jaxconv")).expanduser()
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set XDG_CACHE_HOME or HOME") from None


def search_dirs(name: str) -> list[Path]:
    """Where a data set's files may lie; downloads go to the first. With ``$JAXCONV_DATA``, no cache is needed.

    Raises:
        InputError: no home folder, where one is needed.
    """
    chosen = os.environ.get("JAXCONV_DATA")
    try:
        roots = [Path(chosen).expanduser()] if chosen else []
    except RuntimeError:
        raise InputError(f"JAXCONV_DATA is {chosen}, but there is no such home folder: give it without ~") from None
    try:
        roots.append(cache_dir())
    except InputError as error:
        if not chosen:
            raise InputError(f"{error}, or JAXCONV_DATA") from None
    return [root / name for root in roots]


def ensure_file(source: Source, filename: str) -> Path:
    """The path of a file that is known to be the official one.

    Raises:
        InputError: the file is there but damaged, or it is not and no mirror gave it.
    """
    found = find_local(source, filename)
    if found is None:
        return _download(source, filename)
    if fault := integrity_error(found, source.files[filename]):
        raise InputError(f"{found} {fault}: delete it, and it will be downloaded again")
    return found


def find_local(source: Source, filename: str) -> Path | None:
    """Where the file lies on this machine, if it does; not checked."""
    paths = (folder / filename for folder in search_dirs(source.name))
    return next((path for path in paths if path.is_file()), None)


def find_extracted(source: Source) -> Path | None:
    """The folder of unpacked files, if there is one, beside the official files or a folder higher; not checked."""
    places = (place for folder in search_dirs(source.name) for place in (folder, folder.parent))
    paths = (place / name for place in places for name in source.unpacked)
    return next((path for path in paths if path.is_dir()), None)


def integrity_error(path: Path, wanted: File) -> str | None:
    """Why a file is not the official one, in words that tell what happened to it; None if it is."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        start = file.read(64).lstrip()
    if digest == wanted.sha256:
        return None
    size = path.stat().st_size
    if start[:1] == b"<":
        return "is a web page, not data (an error page that was saved under this name?)"
    if size < wanted.size:
        return f"is cut short: {size:,} of {wanted.size:,} bytes"
    return f"is corrupted: its sha256 is {digest[:12]}…, not {wanted.sha256[:12]}…"


class _MirrorError(Exception):
    """A mirror that did not give the official file. The message is the reason."""


def _download(source: Source, filename: str) -> Path:
    folder, wanted = search_dirs(source.name)[0], source.files[filename]
    failures = []
    for mirror in source.mirrors:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with writing(folder / filename) as file:
                _fetch(mirror + filename, wanted, file, f"{source.name}/{filename}")
            return folder / filename
        except _MirrorError as error:
            failures.append(f"{mirror} ({error})")
        except (OSError, InputError) as error:
            why = str(error) if isinstance(error, InputError) else f"{folder / filename} cannot be written: {error}"
            raise InputError(f"{why}; set JAXCONV_DATA to a folder that can") from None
    raise InputError(
        f"{source.name}: {filename} could not be downloaded. Tried {'; '.join(failures)}. "
        f"Check the network, or put the file into {folder} yourself"
    )


def _fetch(url: str, wanted: File, file: BinaryIO, title: str) -> None:
    """Download with a progress bar; give up on a mirror that is slow, stops early, or sends something else.

    Raises:
        _MirrorError: the mirror's fault.
        OSError: the file cannot be written.
    """
    import requests
    import urllib3

    digest, done, size = hashlib.sha256(), 0, 0
    try:
        with (
            requests.get(
                url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), headers={"Accept-Encoding": "identity"}
            ) as response,
            progress_bar("bytes", "speed") as progress,
        ):
            response.raise_for_status()
            length = response.headers.get("content-length", "")
            size = int(length) if length.isdecimal() else 0
            task = progress.add_task(title, total=wanted.size)
            start = time.monotonic()
            while piece := response.raw.read1(1 << 16):
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                progress.update(task, completed=done)
                seconds = time.monotonic() - start
                if seconds > PATIENCE_SECONDS and done / seconds < LEAST_BYTES_A_SECOND:
                    raise _MirrorError(f"too slow: {done:,} bytes in {seconds:.0f} s")
                if done > wanted.size:
                    raise _MirrorError(f"more than the official {wanted.size:,} bytes")
    except urllib3.exceptions.ReadTimeoutError:
        raise _MirrorError("no answer in time") from None
    except urllib3.exceptions.HTTPError:
        pass  # the connection broke: told below, by how far it came
    except requests.RequestException as error:
        raise _MirrorError(_reason(error)) from None
    if done < size:
        raise _MirrorError(f"cut off after {done:,} of {size:,} bytes")
    if digest.hexdigest() != wanted.sha256:
        raise _MirrorError("not the official file: wrong sha256")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
