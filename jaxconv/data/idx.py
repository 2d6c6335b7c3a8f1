"""The IDX format of MNIST: a magic number that tells type and rank, the sizes, then the bytes."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from jaxconv.errors import InputError


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of bytes, of the rank that the file says.

    The header is big-endian: two zero bytes, 0x08 for unsigned bytes, the rank, then one uint32 a dimension.

    Raises:
        InputError: not gzip, cut short, not IDX, or not as many bytes as the header promises.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}): delete it, and it will be downloaded") from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise InputError(f"{path} is not an IDX file of bytes: it begins with {raw[:4].hex(' ') or 'nothing'}")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    pixels = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if pixels.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} promises {shape} but holds {pixels.size} bytes")
    return pixels.reshape(shape)
