"""Extract archives safely: inside the target folder only, completely or not at all, and up to a size limit."""

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import Any, BinaryIO

from jaxconv.errors import InputError
from jaxconv.utils.files import open_file
from jaxconv.utils.terminal import error_line

SUGGESTION = "unpack it yourself and give the folder"
MAX_DEPTH = 100  # nested folders; Python removes them by recursion
MAX_HEADER_BYTES = 2**20
CHUNK_BYTES = 2**12  # zipfile decompresses this many bytes per read, whatever size they expand to


def extract_archive(archive: Path, folder: Path) -> Path:
    """Unpack a tar (plain, or compressed with gzip, bzip2 or xz) or a zip into a new folder.

    The archive is unpacked into a temporary folder, which is then renamed: the target is complete or absent. The
    archive may contain only files and folders; if a member is a link or a device, or its name leads out of the folder,
    the whole archive is rejected. The unpacked size is limited to 64 GiB and to 100 times the size of the archive (at
    least 64 MiB); the environment variable ``JAXCONV_UNPACK_GB`` sets another limit in gigabytes.

    Raises:
        InputError: if the file is not an archive, is damaged or encrypted, uses an unsupported compression, contains a
            forbidden member, exceeds the size limit, or does not fit on the disk.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_file(archive) as file,
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name[:100]}.partial-") as temporary,
        ):
            partial = Path(temporary) / "complete"
            partial.mkdir()
            budget = ByteBudget(archive, os.fstat(file.fileno()).st_size)
            if (tar := _as_tar(file)) is not None:
                _unpack_tar(archive, tar, partial, budget)
            elif zipfile.is_zipfile(file):
                _unpack_zip(archive, file, partial, budget)
            else:
                raise InputError(f"{archive} is neither a tar nor a zip: give a .tar, .tar.gz or .zip, or a folder")
            os.replace(partial, folder)
    except InputError:
        raise
    except (gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} is damaged: {error_line(error):.300}; download it again") from None
    except RuntimeError as error:  # zipfile raises it for unsupported features: Deflate64, strong encryption
        raise InputError(f"{archive} cannot be unpacked: {error_line(error):.300}; {SUGGESTION}") from None
    except OSError as error:
        if not folder.is_dir():  # a folder here means that another process unpacked the archive first
            raise InputError(
                f"{archive} cannot be unpacked into {folder}: {error_line(error):.300}; {SUGGESTION}"
            ) from None
    except Exception as error:  # tarfile, zipfile and the decompressors raise many exception types
        raise InputError(f"{archive} is damaged: {error_line(error):.300}; download it again") from error
    return folder


class _Reader:
    """Byte stream of a tar with limited reads: tarfile trusts the length in a header, which may claim 8 EiB."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _as_tar(file: BinaryIO) -> tarfile.TarFile | None:
    """Open ``file`` as a tar, decompressing by its magic number; return None if it is not a tar."""
    magic = file.read(6)
    file.seek(0)
    content: Any = file
    if magic.startswith(b"\x1f\x8b"):
        content = gzip.GzipFile(fileobj=file)
    elif magic.startswith(b"BZh"):
        content = bz2.BZ2File(file)
    elif magic.startswith((b"\xfd7zXZ", b"\x5d\0\0")):
        content = lzma.LZMAFile(file)
    try:
        return tarfile.TarFile(fileobj=_Reader(content))  # type: ignore[arg-type]
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError):
        file.seek(0)
        return None


class ByteBudget:
    """Number of bytes that one compressed file may still expand to.

    The limit is :func:`max_unpacked_bytes`. Bytes are counted as they are decompressed, since the size that a file
    declares may be wrong.

    >>> budget = ByteBudget(Path("bomb.zip"), 1_000_000)
    >>> budget.spend(60_000_000)
    >>> budget.spend(60_000_000)
    Traceback (most recent call last):
    jaxconv.errors.InputError: bomb.zip has 1,000,000 bytes and unpacks to more than 100,000,000: if you trust it, set
        the environment variable JAXCONV_UNPACK_GB to a limit in gigabytes
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.limit = self.left = max_unpacked_bytes(size)

    def spend(self, num_bytes: int) -> None:
        """Subtract decompressed bytes from the budget.

        Raises:
            InputError: if the budget is exceeded.
        """
        self.left -= num_bytes
        if self.left < 0:
            raise InputError(
                f"{self.path} has {self.size:,} bytes and unpacks to more than {self.limit:,}: if you trust it, set "
                f"the environment variable {LIMIT_VARIABLE} to a limit in gigabytes"
            )


def _unpack_tar(archive: Path, tar: tarfile.TarFile, folder: Path, budget: ByteBudget) -> None:
    """Check and write one member at a time: ``extractall`` has a safety filter only since Python 3.11.4."""
    for member in tar:
        kind = "a link" if member.issym() or member.islnk() else "a device"
        _validate_member(archive, member.name, None if member.isfile() or member.isdir() else kind)
        if member.size < 0:  # tarfile would seek back by this size and read the same member forever
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        if member.isdir():
            _write(None, folder / member.name, budget)
        elif content := tar.extractfile(member):
            _write(content, folder / member.name, budget)


def _unpack_zip(archive: Path, file: BinaryIO, folder: Path, budget: ByteBudget) -> None:
    """Check all members, then write them."""
    with zipfile.ZipFile(file) as zipped:
        for member in zipped.infolist():
            mode = member.external_attr >> 16  # the Unix mode; 0 in archives from other systems
            plain = not S_IFMT(mode) or S_ISREG(mode) or S_ISDIR(mode)
            _validate_member(archive, member.orig_filename, None if plain else "a link or a device")
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted ({member.filename}): {SUGGESTION}")
        for member in zipped.infolist():
            _write(None if member.is_dir() else zipped.open(member), folder / member.filename, budget)


def _write(content: Any | None, target: Path, budget: ByteBudget) -> None:
    """Write one member, counting the bytes actually decompressed; ``content`` is None for a folder."""
    budget.spend(BLOCK_BYTES)
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            budget.spend(len(chunk))
            file.write(chunk)


def _validate_member(archive: Path, name: str, forbidden: str | None) -> None:
    """Raise InputError for an unsafe member name, or for a member of a ``forbidden`` kind, such as "a link"."""
    error = forbidden and f"is {forbidden}"
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if len(path.parts) > MAX_DEPTH:
            error = f"is more than {MAX_DEPTH} folders deep"
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            error = "would be written outside of the folder"
    if error:
        raise InputError(f"{archive}: its member {name!r:.300} {error}; nothing was unpacked")


LIMIT_VARIABLE = "JAXCONV_UNPACK_GB"
MAX_RATIO = 100  # already compressed images stay below 2, text below 20; deflate can reach 1,032
MIN_LIMIT_BYTES = 64 * 2**20  # limit of small files, whose ratio is not bounded
MAX_LIMIT_BYTES = 64 * 2**30
BLOCK_BYTES = 4096  # the least disk space that a file takes


def max_unpacked_bytes(size: int) -> int:
    """Return the largest number of bytes that a file of ``size`` bytes may expand to.

    It is 100 times ``size``, but at least 64 MiB and at most 64 GiB. The environment variable ``JAXCONV_UNPACK_GB``
    replaces it, in gigabytes.

    Raises:
        InputError: if ``JAXCONV_UNPACK_GB`` is not a positive number.

    >>> max_unpacked_bytes(2**30) == 2**30 * 64, max_unpacked_bytes(20) == 2**20 * 64
    (True, True)
    """
    if raw := os.environ.get(LIMIT_VARIABLE):
        try:
            gigabytes = float(raw)
        except ValueError:
            gigabytes = 0.0
        if not 0 < gigabytes < 1e9:
            raise InputError(f"{LIMIT_VARIABLE} is {raw}: give a number of gigabytes, such as 100")
        return round(gigabytes * 1e9)
    return min(MAX_LIMIT_BYTES, max(MIN_LIMIT_BYTES, MAX_RATIO * size))
