"""Data sets in files of arrays: ``.npz`` of NumPy, as Keras and MedMNIST have them, and IDX of MNIST.

IDX is a magic number that gives type and rank, then the sizes, then the bytes.
"""

import gzip
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxconv.data.archives import Allowance
from jaxconv.data.base import Split
from jaxconv.data.splits import PartialDataset, as_class_labels, default_class_names
from jaxconv.errors import InputError
from jaxconv.utils.files import open_file
from jaxconv.utils.terminal import error_line, printable

# Keras's names and MedMNIST's; the validation arrays may be missing.
NAMES = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
READERS = {  # of a header, by the version of the format; each refuses one of more than 10,000 bytes
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(place: str) -> PartialDataset:
    """Arrays ``x_train, y_train, x_test, y_test`` (``x_val, y_val``), or ``train_images, train_labels, …``, of a file.

    Images are uint8, ``(N, H, W)`` or ``(N, H, W, C)``; labels whole numbers, ``(N,)`` or ``(N, 1)``. The classes are
    named by their numbers. Without a validation part, the last sixth of the training examples is held out for it.

    Raises:
        InputError: no such file, no ``.npz``, a damaged or an encrypted one, one that becomes too large (see
            :mod:`jaxconv.data.archives`), Python objects in it, other names, images that are not uint8, or labels that
            are no class numbers.
    """
    name, path = f"npz:{place}", Path(os.path.expanduser(place))
    try:
        with open_file(path) as file:
            size, magic = os.fstat(file.fileno()).st_size, file.read(6)
            if magic == b"\x93NUMPY":
                raise InputError(f"{name} is one array; wanted an .npz of several, as np.savez writes it")
            if not magic.startswith(b"PK"):
                raise InputError(f"{name} cannot be read as an .npz of arrays: it is no file of numpy's")
            with zipfile.ZipFile(file) as archive:
                return _read_npz(name, archive, Allowance(path, size))
    except FileNotFoundError:
        raise InputError(f"{name}: there is no {path}") from None
    except InputError:
        raise
    except Exception as error:  # of a damaged one zipfile, zlib and numpy raise nearly anything, MemoryError too
        raise InputError(f"{name} cannot be read as an .npz of arrays: {error_line(error):.200}") from error


def _read_npz(name: str, archive: zipfile.ZipFile, allowance: Allowance) -> PartialDataset:
    has = [member.removesuffix(".npy") for member in archive.namelist()]
    names = next((names for names in NAMES if {*names["train"], *names["test"]} <= set(has)), None)
    if names is None:
        wanted = ", or ".join(", ".join((*names["train"], *names["test"])) for names in NAMES)
        raise InputError(f"{name} has {printable(', '.join(has)) or 'nothing':.300}; wanted {wanted}")
    splits = {}
    for part, (images, labels) in names.items():
        if images in has and labels in has:
            pixels = _pictures(f"{name}: {images}", _array(name, archive, images, allowance))
            splits[part] = Split(pixels, as_class_labels(f"{name}: {labels}", _array(name, archive, labels, allowance)))
    return PartialDataset(name, default_class_names(name, splits["train"].labels), **splits)


def _array(name: str, archive: zipfile.ZipFile, key: str, allowance: Allowance) -> np.ndarray:
    """One array of numbers; it is compared with the bytes that are there before memory is taken for it."""
    member = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
    if member.flag_bits & 1:
        raise InputError(f"{name}: {key} is encrypted: save it with np.savez")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: {key} is compressed in a way that numpy does not write: save it with np.savez")
    allowance.spend(member.file_size)  # no more than that comes out, whatever is in it
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise InputError(f"{name}: {key} is in numpy's format {version}, for records only: save numbers")
        shape, _, dtype = READERS[version](file)
        held = member.file_size - file.tell()
    if dtype.hasobject:
        raise InputError(f"{name}: {key} holds Python objects, which are not loaded: save numbers")
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: {key} is {dtype!s:.50}: save whole numbers")
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise InputError(f"{name}: {key} promises {dtype}{shape!s:.100} but holds {held:,} bytes: it is damaged")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _pictures(where: str, images: np.ndarray) -> np.ndarray:
    """Images as ``(N, H, W, C)`` uint8; refuse what would have to be guessed."""
    if images.dtype != np.uint8:
        array = where.split()[-1]
        floats = np.issubdtype(images.dtype, np.floating)
        if floats and np.isnan(images).any():
            raise InputError(f"{where} has NaNs, which are no pixels: replace them, with np.nan_to_num for instance")
        scaled = floats and images.size and images.max() <= 1
        fix = f"({array} * 255).round()" if scaled else f"{array}.clip(0, 255){'.round()' if floats else ''}"
        raise InputError(f"{where} is {images.dtype}, wanted uint8 from 0 to 255: save {fix}.astype(np.uint8)")
    if images.ndim not in (3, 4) or not images.size:
        raise InputError(f"{where} has the shape {images.shape}; wanted (N, H, W) or (N, H, W, C), and at least one")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise InputError(f"{where} {images.shape} looks channels-first: save np.moveaxis(images, 1, -1)")
    return images if images.ndim == 4 else images[..., None]


NAMED = {"images": "images-idx3-ubyte.gz", "labels": "labels-idx1-ubyte.gz"}
MOST_AXES = 64  # numpy's
DEFLATE = 1032  # a byte of it becomes at most as many


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of bytes, gzipped if its name ends so, of the rank that the file says.

    The header is big-endian: two zero bytes, 0x08 for unsigned bytes, the rank, then one uint32 a dimension.

    Raises:
        InputError: not a file, not gzip, cut short, not IDX, not as many bytes as the header promises, or more than
            a gzip file of this size may become (see :mod:`jaxconv.data.archives`).
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".gz":
                return _parse(path, file, size)
            with gzip.GzipFile(fileobj=file) as content:
                return _parse(path, content, DEFLATE * size, Allowance(path, size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}): delete it, and get it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise InputError(f"{path} does not fit in memory") from None


def _parse(path: Path, file: BinaryIO | gzip.GzipFile, most: int, allowance: Allowance | None = None) -> np.ndarray:
    """The array. What the header promises is compared with the ``most`` bytes there can be before it is read."""
    magic = file.read(4)
    rank = magic[3] if magic[:3] == b"\x00\x00\x08" and len(magic) == 4 else None
    sizes = file.read(4 * rank) if rank is not None else b""
    if rank is None or len(sizes) < 4 * rank:
        raise InputError(f"{path} is not an IDX file of bytes: it begins with {magic.hex(' ') or 'nothing'}")
    if rank > MOST_AXES:
        raise InputError(f"{path} promises an array of rank {rank}; numpy's have at most {MOST_AXES}: it is damaged")
    shape = struct.unpack(f">{rank}I", sizes)
    count = math.prod(shape)
    if count > most:
        raise InputError(f"{path} promises {shape}, but holds at most {most:,} bytes")
    if allowance is not None:
        allowance.spend(count)
    pixels = file.read(count)
    if len(pixels) < count or file.read(1):
        holds = f"{len(pixels)} bytes" if len(pixels) < count else "more bytes than that"
        raise InputError(f"{path} promises {shape} but holds {holds}")
    try:
        return np.frombuffer(pixels, np.uint8).reshape(shape)
    except ValueError as error:  # 0 times more than numpy can count
        raise InputError(f"{path} promises {shape}, which is no array: {error}") from None


def load_idx(place: str) -> PartialDataset:
    """Four IDX files in a folder, named as those of MNIST: images of any one size, any number of classes.

    The names hold ``train`` or ``test`` (or ``t10k``), and ``images`` or ``labels``; each may be gzipped. Images are
    ``(N, H, W)`` or ``(N, H, W, C)``. The classes are named by their numbers; the last sixth of the training examples
    is held out for validation.

    Raises:
        InputError: no such folder, a file that is missing or there twice, damaged, or does not go with another.
    """
    name, folder = f"idx:{place}", Path(os.path.expanduser(place))
    if not folder.is_dir():
        raise InputError(f"{name}: there is no folder {folder}")
    train, test = _read_idx(name, folder, "train"), _read_idx(name, folder, "test", "t10k")
    return PartialDataset(name, default_class_names(name, train.labels), train, test=test)


def _read_idx(name: str, folder: Path, *words: str) -> Split:
    images, labels = (_one(name, folder, words, what) for what in NAMED)
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.ndim not in (3, 4) or numbers.shape != pixels.shape[:1]:
        raise InputError(f"{name}: images {pixels.shape} and labels {numbers.shape} do not go together")
    return Split(pixels if pixels.ndim == 4 else pixels[..., None], as_class_labels(f"{name}: {labels.name}", numbers))


def _one(name: str, folder: Path, words: tuple[str, ...], what: str) -> Path:
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and what in path.name and any(word in path.name for word in words)
    ]
    if len(found) == 1:
        return found[0]
    has = " and ".join(path.name for path in found)
    fix = f"{has}: leave one of them" if found else f"no file named like {words[-1]}-{NAMED[what]}"
    raise InputError(f"{name} has {fix}")
