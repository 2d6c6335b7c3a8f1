"""Arrays as pixels: colours ``(H, W, 3)`` in uint8, for a figure, a page or a file."""

import base64
import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

FRAME = (255, 140, 0)


@named_errors
def to_rgb(image: Any) -> np.ndarray:
    """An image as it is: ``(H, W, C)`` bytes, or floats from 0 to 1.

    Three channels are a colour; of more, the first three are shown, and of two, the first, in grey.

    >>> to_rgb(np.array([[[0.0], [1.0]]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise InputError(f"one image (H, W, C) is wanted, not {image.shape}")
    channels = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if channels.dtype == np.uint8:
        return channels
    return np.round(255 * np.clip(channels, 0, 1)).astype(np.uint8)


def rescale(array: Any) -> np.ndarray:
    """An array ``(H, W)`` or ``(H, W, 3)`` as grey or colour, its least value black and its greatest white.

    >>> rescale(np.array([[-1.0, 3.0, 1.0]]))[0, :, 0].tolist()
    [0, 255, 128]
    """
    array = np.asarray(array, np.float64)
    low, high = array.min(), array.max()
    array = (array - low) / (high - low) if high > low else np.full_like(array, 0.5)
    return to_rgb(array if array.ndim == 3 else array[..., None])


def diverging(array: Any, largest: float | None = None) -> np.ndarray:
    """An array ``(H, W)`` of both signs: red above 0, blue below, white at 0.

    Args:
        array: what to show.
        largest: the value of the deepest red and blue; by default the largest there is.

    >>> diverging(np.array([[0.0]]))[0, 0].tolist()
    [247, 246, 246]
    """
    array = np.asarray(array, np.float64)
    largest = float(np.abs(array).max()) if largest is None else largest
    return _coloured("RdBu_r", 0.5 + 0.5 * array / (largest or 1))


def heatmap(array: Any, largest: float | None = None) -> np.ndarray:
    """An array ``(H, W)`` that is not negative: dark at 0, bright where it is largest.

    >>> heatmap(np.array([[0.0, 1.0]]))[0].tolist()
    [[0, 0, 3], [252, 254, 164]]
    """
    array = np.asarray(array, np.float64)
    return _coloured("inferno", array / ((float(array.max()) if largest is None else largest) or 1))


@named_errors
def overlay(image: Any, array: Any, *, share: float = 0.55) -> np.ndarray:
    """An image in grey, with a map of heat ``(H, W)`` over it.

    >>> overlay(np.zeros((2, 2, 1), np.uint8), np.eye(2)).shape
    (2, 2, 3)
    """
    below = to_rgb(image)
    if below.shape[:2] != np.shape(array):
        raise InputError(f"a map {np.shape(array)} does not fit on an image of {below.shape[:2]}")
    grey = below.mean(axis=-1, keepdims=True)
    return np.round((1 - share) * grey + share * heatmap(array)).astype(np.uint8)


def draw_box(image: Any, box: Sequence[tuple[int, int]], *, side: int = 224) -> np.ndarray:
    """An image, enlarged to about ``side`` pixels, with a frame around a box of it; what is beyond the border is not.

    Args:
        image: as :func:`to_rgb` takes it.
        box: rows and columns, from and up to, as :meth:`jaxconv.shapes.PositionedReceptiveField.bounds` tells them.
        side: of the longer side; the image is enlarged by a whole number.

    >>> draw_box(np.zeros((2, 2, 1), np.uint8), ((0, 1), (1, 4)), side=6)[:, :, 0].tolist()[:4]
    [[0, 0, 0, 255, 255, 255], [0, 0, 0, 255, 0, 255], [0, 0, 0, 255, 255, 255], [0, 0, 0, 0, 0, 0]]
    """
    small = to_rgb(image)
    times = max(1, side // max(small.shape[:2]))
    large = small.repeat(times, axis=0).repeat(times, axis=1)
    edges = [(max(low, 0) * times, min(high, n) * times) for (low, high), n in zip(box, small.shape, strict=False)]
    (top, bottom), (left, right) = edges
    thick = max(1, side // 75)
    line = np.zeros(large.shape[:2], bool)
    line[top:bottom, left:right] = True
    line[top + thick : bottom - thick, left + thick : right - thick] = False
    large[line] = FRAME
    return large


def tile(pictures: Sequence[Any], columns: int, *, gap: int = 1) -> np.ndarray:
    """Pictures of one size as one, row after row, with gaps that are transparent: ``(H, W, 4)``.

    >>> tile([np.zeros((2, 2, 3), np.uint8)] * 3, 2).shape
    (5, 5, 4)
    """
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, each in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        whole[top : top + height, left : left + width, :3] = each
        whole[top : top + height, left : left + width, 3] = 255
    return whole


@named_errors
def feature_maps(y: Any, most: int = 64) -> np.ndarray:
    """What a layer makes of one image, ``(H, W, C)`` or ``(C,)``: a small picture for each channel, with transparency.

    Bright is far above 0; of numbers of both signs, red is above 0 and blue below. All share one scale.

    Args:
        y: the layer's output.
        most: how many channels to show, the first ones; of a vector, all are.

    >>> feature_maps(np.zeros((4, 5, 3))).shape, feature_maps(np.zeros(10)).shape
    ((4, 17, 4), (11, 146, 4))
    """
    y = np.asarray(y, np.float32)
    vector = y.ndim == 1
    planes = np.broadcast_to(y, (11, 11, len(y))) if vector else y[..., :most]
    if planes.ndim != 3:
        raise InputError(f"one image's (H, W, C) or (C,) is wanted, not {y.shape}")
    largest, count = float(np.abs(y).max()), planes.shape[-1]
    paint = diverging if y.min() < 0 else heatmap
    columns = 32 if vector else 8 if count <= 32 else 16
    return tile([paint(planes[..., c], largest) for c in range(count)], min(count, columns), gap=4 if vector else 1)


def to_data_uri(pixels: np.ndarray, *, colors: int | None = None, **options: Any) -> str:
    """Pixels as a PNG that is written out in its own address, for a page that needs no other file.

    Args:
        pixels: ``(H, W, 3)`` uint8, or ``(H, W, 4)`` with transparency.
        colors: no more than so many.
        options: of Pillow's writer of PNG files: ``optimize=True``, ``compress_level=1``.

    >>> to_data_uri(np.zeros((2, 3, 3), np.uint8))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    image, written = Image.fromarray(pixels), io.BytesIO()
    if colors is not None:
        image = image.quantize(colors, method=Image.Quantize.FASTOCTREE)
    image.save(written, "PNG", **options)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _coloured(name: str, values: np.ndarray) -> np.ndarray:
    return np.asarray(_colors(name)(values, bytes=True))[..., :3]


@functools.cache
def _colors(name: str) -> "Colormap":
    """matplotlib gives a copy each time, which makes its table anew: of small pictures that is most of the work."""
    from matplotlib import colormaps

    return colormaps[name]
