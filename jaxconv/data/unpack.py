"""Archives are unpacked so that nothing of them lands outside the folder meant for them, and never by half."""

import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_IFMT, S_ISDIR, S_ISREG

from jaxconv.errors import InputError

INSTEAD = "unpack it yourself and give the folder"


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar (plain, or compressed with gzip, bzip2 or xz) or a zip into a folder that is not there yet.

    It is unpacked beside and renamed, so that the folder is whole or not there. Files and folders are all that an
    archive may hold; a link, a device, or a name that leads out of the folder is refused, and with it everything.

    Raises:
        InputError: no archive, a damaged or an encrypted one, one packed in a way that Python does not know, one with
            such a member, or a full disk.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.partial-") as beside:
            partial = Path(beside) / "whole"
            partial.mkdir()
            if tarfile.is_tarfile(archive):
                _unpack_tar(archive, partial)
            elif zipfile.is_zipfile(archive):
                _unpack_zip(archive, partial)
            else:
                raise InputError(f"{archive} is neither a tar nor a zip: give a .tar, .tar.gz or .zip, or a folder")
            os.replace(partial, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{archive} is damaged: {error}; get it again") from None
    except RuntimeError as error:  # zipfile's, of what it cannot do: Deflate64, strong encryption
        raise InputError(f"{archive} cannot be unpacked: {error}; {INSTEAD}") from None
    except OSError as error:
        if not folder.is_dir():  # else another process was as far as that a moment sooner
            raise InputError(f"{archive} cannot be unpacked into {folder}: {error}; {INSTEAD}") from None
    return folder


def _unpack_tar(archive: Path, folder: Path) -> None:
    """File by file: ``extractall`` has a filter for what an archive may hold only since Python 3.11.4."""
    with tarfile.open(archive) as tar:
        for member in tar:
            kind = "a link" if member.issym() or member.islnk() else "a device"
            _refuse(archive, member.name, None if member.isfile() or member.isdir() else kind)
            target = folder / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif content := tar.extractfile(member):
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            mode = member.external_attr >> 16  # Unix's, if it is from there
            plain = not S_IFMT(mode) or S_ISREG(mode) or S_ISDIR(mode)
            _refuse(archive, member.orig_filename, None if plain else "a link or a device")
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted ({member.filename}): {INSTEAD}")
        content.extractall(folder)


def _refuse(archive: Path, name: str, kind: str | None) -> None:
    """Refuse a member by its name, or as what it is."""
    fault = kind and f"is {kind}"
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            fault = "would be written outside of the folder"
    if fault:
        raise InputError(f"{archive}: its member {name!r} {fault}; nothing was unpacked")
