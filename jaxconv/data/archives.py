"""Extract archives: nothing leaves the target folder, nothing is left half done, and sizes have limits."""

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

INSTEAD = "unpack it yourself and give the folder"
DEEPEST = 100  # folders in one another: Python removes them by recursion
LONGEST_HEADER = 2**20
PIECE = 2**12  # zipfile unpacks as many bytes at once, whatever they become


def extract_archive(archive: Path, folder: Path) -> Path:
    """Unpack a tar (plain, or compressed with gzip, bzip2 or xz) or a zip into a folder that is not there yet.

    It is unpacked beside and renamed, so that the folder is whole or not there. Files and folders are all that an
    archive may hold; a link, a device, or a name that leads out of the folder is refused, and with it everything. So is
    an archive that becomes too large: more than 64 GiB, or than 100 times its own size (64 MiB of a small one), unless
    the environment variable ``JAXCONV_UNPACK_GB`` says how many gigabytes it may take.

    Raises:
        InputError: no archive, a damaged or an encrypted one, one packed in a way that Python does not know, one with
            such a member, one that becomes too large, or a full disk.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_file(archive) as file,
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name[:100]}.partial-") as beside,
        ):
            partial = Path(beside) / "whole"
            partial.mkdir()
            allowance = Allowance(archive, os.fstat(file.fileno()).st_size)
            if (tar := _as_tar(file)) is not None:
                _unpack_tar(archive, tar, partial, allowance)
            elif zipfile.is_zipfile(file):
                _unpack_zip(archive, file, partial, allowance)
            else:
                raise InputError(f"{archive} is neither a tar nor a zip: give a .tar, .tar.gz or .zip, or a folder")
            os.replace(partial, folder)
    except InputError:
        raise
    except (gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} is damaged: {error_line(error):.300}; get it again") from None
    except RuntimeError as error:  # zipfile's, of what it cannot do: Deflate64, strong encryption
        raise InputError(f"{archive} cannot be unpacked: {error_line(error):.300}; {INSTEAD}") from None
    except OSError as error:
        if not folder.is_dir():  # else another process was as far as that a moment sooner
            raise InputError(
                f"{archive} cannot be unpacked into {folder}: {error_line(error):.300}; {INSTEAD}"
            ) from None
    except Exception as error:  # tarfile, zipfile and what decompresses for them raise nearly anything
        raise InputError(f"{archive} is damaged: {error_line(error):.300}; get it again") from error
    return folder


class _Reader:
    """A tar's bytes. tarfile reads headers as long as they say they are, and those who wrote them may say 8 EiB."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _as_tar(file: BinaryIO) -> tarfile.TarFile | None:
    magic = file.read(6)
    file.seek(0)
    content: Any = file  # or what decompresses it
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


class Allowance:
    """The bytes that one compressed file may still become.

    At most 64 GiB, and at most 100 times the file's own size (64 MiB of a small one). The environment variable
    ``JAXCONV_UNPACK_GB`` gives another limit, in gigabytes, instead of both. Bytes are counted as they come out, since
    what a file says of its size may be wrong.

    >>> allowance = Allowance(Path("bomb.zip"), 1_000_000)
    >>> allowance.spend(60_000_000)
    >>> allowance.spend(60_000_000)
    Traceback (most recent call last):
    jaxconv.errors.InputError: bomb.zip has 1,000,000 bytes and unpacks to more than 100,000,000: if you trust it, set
        the environment variable JAXCONV_UNPACK_GB to how many gigabytes it may take
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.most = self.left = most_unpacked(size)

    def spend(self, count: int) -> None:
        """Count bytes that come out.

        Raises:
            InputError: they are more than what is left.
        """
        self.left -= count
        if self.left < 0:
            raise InputError(
                f"{self.path} has {self.size:,} bytes and unpacks to more than {self.most:,}: if you trust it, set the "
                f"environment variable {VARIABLE} to how many gigabytes it may take"
            )


def _unpack_tar(archive: Path, tar: tarfile.TarFile, folder: Path, allowance: Allowance) -> None:
    """File by file: ``extractall`` has a filter for what an archive may hold only since Python 3.11.4."""
    for member in tar:
        kind = "a link" if member.issym() or member.islnk() else "a device"
        _refuse(archive, member.name, None if member.isfile() or member.isdir() else kind)
        if member.size < 0:  # tarfile would go back by as much, and find it again
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        if member.isdir():
            _write(None, folder / member.name, allowance)
        elif content := tar.extractfile(member):
            _write(content, folder / member.name, allowance)


def _unpack_zip(archive: Path, file: BinaryIO, folder: Path, allowance: Allowance) -> None:
    with zipfile.ZipFile(file) as zipped:
        for member in zipped.infolist():
            mode = member.external_attr >> 16  # Unix's, if it is from there
            plain = not S_IFMT(mode) or S_ISREG(mode) or S_ISDIR(mode)
            _refuse(archive, member.orig_filename, None if plain else "a link or a device")
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted ({member.filename}): {INSTEAD}")
        for member in zipped.infolist():
            _write(None if member.is_dir() else zipped.open(member), folder / member.filename, allowance)


def _write(content: Any | None, target: Path, allowance: Allowance) -> None:
    """Write one member; a folder has no content. What is counted is what comes, not what the archive says."""
    allowance.spend(BLOCK)
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        while piece := content.read(PIECE):
            allowance.spend(len(piece))
            file.write(piece)


def _refuse(archive: Path, name: str, kind: str | None) -> None:
    """Refuse a member by its name, or as what it is."""
    fault = kind and f"is {kind}"
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if len(path.parts) > DEEPEST:
            fault = f"is more than {DEEPEST} folders deep"
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            fault = "would be written outside of the folder"
    if fault:
        raise InputError(f"{archive}: its member {name!r:.300} {fault}; nothing was unpacked")


VARIABLE = "JAXCONV_UNPACK_GB"
RATIO = 100  # pictures, compressed once already, do not reach 2, and text 20; deflate's highest is 1,032
SMALL = 64 * 2**20  # whatever the ratio
LARGEST = 64 * 2**30
BLOCK = 4096  # what a file takes of a disk, at the least


def most_unpacked(size: int) -> int:
    """The largest number of bytes that a file of ``size`` bytes may become.

    Raises:
        InputError: ``JAXCONV_UNPACK_GB`` is no positive number.

    >>> most_unpacked(2**30) == 2**30 * 64, most_unpacked(20) == 2**20 * 64
    (True, True)
    """
    if given := os.environ.get(VARIABLE):
        try:
            gigabytes = float(given)
        except ValueError:
            gigabytes = 0.0
        if not 0 < gigabytes < 1e9:
            raise InputError(f"{VARIABLE} is {given}: give a number of gigabytes, such as 100")
        return round(gigabytes * 1e9)
    return min(LARGEST, max(SMALL, RATIO * size))
