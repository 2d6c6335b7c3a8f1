"""Pixels that go into a page: each picture is a PNG written out in the address of the image itself."""

from typing import NamedTuple

import numpy as np

from jaxconv.plot.rgb import address

LARGE = 4000  # pixels; of larger pictures the colours are few, or a page of a deep network would weigh megabytes
COLORS = 64


class Tile(NamedTuple):
    """One small picture of the page.

    Attributes:
        source: the picture, as an address that needs no file.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        width, height: of its pixels.
    """

    source: str
    alt: str
    caption: str
    width: int
    height: int


def tile(pixels: np.ndarray, alt: str, caption: str = "") -> Tile:
    """A picture for the page.

    Args:
        pixels: ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.rgb` makes them, or ``(H, W, 4)`` with transparency.
        alt: what it shows.
        caption: below it.

    >>> tile(np.zeros((2, 3, 3), np.uint8), "nothing").source[:22]
    'data:image/png;base64,'
    """
    height, width = pixels.shape[:2]
    colors = COLORS if height * width > LARGE else None
    return Tile(address(pixels, colors=colors, optimize=True), alt, caption, width, height)
