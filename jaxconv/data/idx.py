"""The IDX format of MNIST: a magic number that tells type and rank, the sizes, then the bytes."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxconv.data.base import Split
from jaxconv.data.limits import Allowance
from jaxconv.data.splits import Parts, class_numbers, numbered
from jaxconv.errors import InputError
from jaxconv.utils.files import open_file

NAMED = {"images": "images-idx3-ubyte.gz", "labels": "labels-idx1-ubyte.gz"}
MOST_AXES = 64  # numpy's
DEFLATE = 1032  # a byte of it becomes at most as many


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of bytes, gzipped if its name ends so, of the rank that the file says.

    The header is big-endian: two zero bytes, 0x08 for unsigned bytes, the rank, then one uint32 a dimension.

    Raises:
        InputError: not a file, not gzip, cut short, not IDX, not as many bytes as the header promises, or more than
            a gzip file of this size may become (see :mod:`jaxconv.data.limits`).
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


def load_idx(place: str) -> Parts:
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
    return Parts(name, numbered(name, train.labels), train, test=test)


def _read_idx(name: str, folder: Path, *words: str) -> Split:
    images, labels = (_one(name, folder, words, what) for what in NAMED)
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.ndim not in (3, 4) or numbers.shape != pixels.shape[:1]:
        raise InputError(f"{name}: images {pixels.shape} and labels {numbers.shape} do not go together")
    return Split(pixels if pixels.ndim == 4 else pixels[..., None], class_numbers(f"{name}: {labels.name}", numbers))


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
