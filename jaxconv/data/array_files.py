"""Load datasets from array files: NumPy ``.npz``, as Keras and MedMNIST use, and IDX, as MNIST uses.

An IDX file is a magic number that encodes dtype and rank, then the sizes, then the bytes.
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

from jaxconv.data.archives import ByteBudget
from jaxconv.data.base import Split
from jaxconv.data.splits import PartialDataset, as_class_labels, default_class_names
from jaxconv.errors import InputError
from jaxconv.utils.files import open_file
from jaxconv.utils.terminal import error_line, printable

# The array names of Keras and of MedMNIST; the validation arrays are optional.
NAMING_SCHEMES = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
HEADER_READERS = {  # by format version; each rejects a header of more than 10,000 bytes
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(location: str) -> PartialDataset:
    """Load an ``.npz`` with the arrays ``x_train, y_train, x_test, y_test``, or ``train_images, train_labels, …``.

    Images are uint8, ``(N, H, W)`` or ``(N, H, W, C)``; labels are integers, ``(N,)`` or ``(N, 1)``. The class names
    are the class indices. The validation arrays (``x_val, y_val`` or ``val_images, val_labels``) are optional; without
    them the last sixth of the training examples is held out.

    Raises:
        InputError: if the file is missing, not an ``.npz``, damaged, encrypted or too large when decompressed (see
            :mod:`jaxconv.data.archives`), contains Python objects or other array names, the images are not uint8, or
            the labels are not class indices.
    """
    name, path = f"npz:{location}", Path(os.path.expanduser(location))
    try:
        with open_file(path) as file:
            size, magic = os.fstat(file.fileno()).st_size, file.read(6)
            if magic == b"\x93NUMPY":
                raise InputError(f"{name} is a single array; expected an .npz of several, as np.savez writes it")
            if not magic.startswith(b"PK"):
                raise InputError(f"{name} cannot be read as an .npz of arrays: it is not a NumPy file")
            with zipfile.ZipFile(file) as archive:
                return _read_splits(name, archive, ByteBudget(path, size))
    except FileNotFoundError:
        raise InputError(f"{name}: there is no {path}") from None
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types for a damaged file, also MemoryError
        raise InputError(f"{name} cannot be read as an .npz of arrays: {error_line(error):.200}") from error


def _read_splits(name: str, archive: zipfile.ZipFile, budget: ByteBudget) -> PartialDataset:
    """Read the arrays of the first naming scheme whose training and test arrays are all present."""
    keys = [member.removesuffix(".npy") for member in archive.namelist()]
    scheme = next((scheme for scheme in NAMING_SCHEMES if {*scheme["train"], *scheme["test"]} <= set(keys)), None)
    if scheme is None:
        expected = ", or ".join(", ".join((*scheme["train"], *scheme["test"])) for scheme in NAMING_SCHEMES)
        raise InputError(f"{name} has {printable(', '.join(keys)) or 'no arrays':.300}; expected {expected}")
    splits = {}
    for split, (images_key, labels_key) in scheme.items():
        if images_key in keys and labels_key in keys:
            images = _as_image_batch(f"{name}: {images_key}", _read_array(name, archive, images_key, budget))
            labels = as_class_labels(f"{name}: {labels_key}", _read_array(name, archive, labels_key, budget))
            splits[split] = Split(images, labels)
    return PartialDataset(name, default_class_names(name, splits["train"].labels), **splits)


def _read_array(name: str, archive: zipfile.ZipFile, key: str, budget: ByteBudget) -> np.ndarray:
    """Read one numeric array; its declared shape must match its size in bytes before memory is allocated."""
    member = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
    if member.flag_bits & 1:
        raise InputError(f"{name}: {key} is encrypted: save it with np.savez")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: {key} is compressed in a way that numpy does not write: save it with np.savez")
    budget.spend(member.file_size)  # zipfile never reads more than this
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADER_READERS:
            raise InputError(f"{name}: {key} is in numpy's format {version}, for records only: save numbers")
        shape, _, dtype = HEADER_READERS[version](file)
        num_bytes = member.file_size - file.tell()
    if dtype.hasobject:
        raise InputError(f"{name}: {key} holds Python objects, which are not loaded: save numbers")
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: {key} is {dtype!s:.50}: save integers")
    if len(shape) > MAX_AXES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != num_bytes:
        raise InputError(f"{name}: {key} declares {dtype}{shape!s:.100} but holds {num_bytes:,} bytes: it is damaged")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _as_image_batch(name: str, images: np.ndarray) -> np.ndarray:
    """Return images as ``(N, H, W, C)`` uint8; raise InputError instead of guessing a scale or an axis order."""
    if images.dtype != np.uint8:
        array = name.split()[-1]
        floats = np.issubdtype(images.dtype, np.floating)
        if floats and np.isnan(images).any():
            raise InputError(f"{name} has NaNs, which are not valid pixels: replace them, for example by np.nan_to_num")
        scaled = floats and images.size and images.max() <= 1
        fix = f"({array} * 255).round()" if scaled else f"{array}.clip(0, 255){'.round()' if floats else ''}"
        raise InputError(f"{name} is {images.dtype}, expected uint8 from 0 to 255: save {fix}.astype(np.uint8)")
    if images.ndim not in (3, 4) or not images.size:
        raise InputError(
            f"{name} has the shape {images.shape}; expected (N, H, W) or (N, H, W, C) with at least one image"
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise InputError(f"{name} {images.shape} looks channels-first: save np.moveaxis(images, 1, -1)")
    return images if images.ndim == 4 else images[..., None]


IDX_FILENAMES = {"images": "images-idx3-ubyte.gz", "labels": "labels-idx1-ubyte.gz"}
MAX_AXES = 64  # numpy's limit
MAX_DEFLATE_RATIO = 1032


def read_idx(path: Path) -> np.ndarray:
    """Read the uint8 array in an IDX file, which is gzipped if its name ends in ``.gz``.

    The header is big-endian: two zero bytes, 0x08 for unsigned bytes, the rank, then one uint32 per dimension.

    Raises:
        InputError: if the path is not a file, the file is not gzip, truncated or not IDX, its size differs from the
            header, or it decompresses to more than the limit (see :mod:`jaxconv.data.archives`).
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".gz":
                return _parse_idx(path, file, size)
            with gzip.GzipFile(fileobj=file) as content:
                return _parse_idx(path, content, MAX_DEFLATE_RATIO * size, ByteBudget(path, size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a complete gzip file ({error}): delete it and download it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise InputError(f"{path} does not fit in memory") from None


def _parse_idx(
    path: Path, file: BinaryIO | gzip.GzipFile, max_bytes: int, budget: ByteBudget | None = None
) -> np.ndarray:
    """Parse the header and read the array, after comparing its declared size with ``max_bytes``."""
    magic = file.read(4)
    rank = magic[3] if magic[:3] == b"\x00\x00\x08" and len(magic) == 4 else None
    sizes = file.read(4 * rank) if rank is not None else b""
    if rank is None or len(sizes) < 4 * rank:
        raise InputError(f"{path} is not an IDX file of bytes: it begins with {magic.hex(' ') or 'nothing'}")
    if rank > MAX_AXES:
        raise InputError(f"{path} declares an array of rank {rank}; numpy allows at most {MAX_AXES}: it is damaged")
    shape = struct.unpack(f">{rank}I", sizes)
    num_bytes = math.prod(shape)
    if num_bytes > max_bytes:
        raise InputError(f"{path} declares {shape}, but holds at most {max_bytes:,} bytes")
    if budget is not None:
        budget.spend(num_bytes)
    content = file.read(num_bytes)
    if len(content) < num_bytes or file.read(1):
        actual = f"{len(content)} bytes" if len(content) < num_bytes else "more bytes than that"
        raise InputError(f"{path} declares {shape} but holds {actual}")
    try:
        return np.frombuffer(content, np.uint8).reshape(shape)
    except ValueError as error:  # an axis of size 0 beside axes whose product overflows
        raise InputError(f"{path} declares {shape}, which numpy cannot represent: {error}") from None


def load_idx(location: str) -> PartialDataset:
    """Load a folder of four IDX files, named like those of MNIST, with any image size and number of classes.

    The names contain ``train`` or ``test`` (or ``t10k``), and ``images`` or ``labels``; each file may be gzipped.
    Images are ``(N, H, W)`` or ``(N, H, W, C)``. The class names are the class indices. The last sixth of the training
    examples is held out for validation.

    Raises:
        InputError: if the folder or a file is missing, two files match, a file is damaged, or images and labels differ
            in number.
    """
    name, folder = f"idx:{location}", Path(os.path.expanduser(location))
    if not folder.is_dir():
        raise InputError(f"{name}: there is no folder {folder}")
    train, test = _read_split(name, folder, "train"), _read_split(name, folder, "test", "t10k")
    return PartialDataset(name, default_class_names(name, train.labels), train, test=test)


def _read_split(name: str, folder: Path, *split_names: str) -> Split:
    """Read the images and labels of one split, whose file names contain one of ``split_names``."""
    images_path, labels_path = (_find_idx_file(name, folder, split_names, content) for content in IDX_FILENAMES)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
        raise InputError(f"{name}: images {images.shape} and labels {labels.shape} do not match")
    images = images if images.ndim == 4 else images[..., None]
    return Split(images, as_class_labels(f"{name}: {labels_path.name}", labels))


def _find_idx_file(name: str, folder: Path, split_names: tuple[str, ...], content: str) -> Path:
    """Return the only file whose name contains ``content`` and one of ``split_names``."""
    matches = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and content in path.name and any(split in path.name for split in split_names)
    ]
    if len(matches) == 1:
        return matches[0]
    listed = " and ".join(path.name for path in matches)
    fix = f"{listed}: keep one of them" if matches else f"no file named like {split_names[-1]}-{IDX_FILENAMES[content]}"
    raise InputError(f"{name} has {fix}")
