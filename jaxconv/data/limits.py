"""Limits on the bytes that a compressed file becomes: enough for data sets, not for a decompression bomb."""

import os
from pathlib import Path

from jaxconv.errors import InputError

VARIABLE = "JAXCONV_UNPACK_GB"
RATIO = 100  # pictures, compressed once already, do not reach 2, and text 20; deflate's highest is 1,032
SMALL = 64 * 2**20  # whatever the ratio
LARGEST = 64 * 2**30
BLOCK = 4096  # what a file takes of a disk, at the least


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
