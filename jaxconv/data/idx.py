"""The IDX format of MNIST: a magic number that tells type and rank, the sizes, then the bytes."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from jaxconv.data.dataset import Split
from jaxconv.data.parts import Parts, class_numbers, numbered
from jaxconv.errors import InputError

NAMED = {"images": "images-idx3-ubyte.gz", "labels": "labels-idx1-ubyte.gz"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of bytes, gzipped if its name ends so, of the rank that the file says.

    The header is big-endian: two zero bytes, 0x08 for unsigned bytes, the rank, then one uint32 a dimension.

    Raises:
        InputError: not gzip, cut short, not IDX, or not as many bytes as the header promises.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}): delete it, and get it again") from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise InputError(f"{path} is not an IDX file of bytes: it begins with {raw[:4].hex(' ') or 'nothing'}")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    pixels = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if pixels.size != math.prod(shape):
        raise InputError(f"{path} promises {shape} but holds {pixels.size} bytes")
    return pixels.reshape(shape)


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
    train, test = _read(name, folder, "train"), _read(name, folder, "test", "t10k")
    return Parts(name, numbered(name, train.labels), train, test=test)


def _read(name: str, folder: Path, *words: str) -> Split:
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
