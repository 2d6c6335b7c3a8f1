"""Conversion of arrays to RGB pixels ``(H, W, 3)`` uint8, for a figure, an HTML page or a file."""

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
    """Convert an image ``(H, W, C)``, uint8 or floats in [0, 1], to RGB.

    Three channels are a color; of more, the first three are used, and of two, the first, in gray.

    >>> to_rgb(np.array([[[0.0], [1.0]]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise InputError(f"image must be (H, W, C), got {image.shape}")
    channels = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if channels.dtype == np.uint8:
        return channels
    return np.round(255 * np.clip(channels, 0, 1)).astype(np.uint8)


def rescale(array: Any) -> np.ndarray:
    """Rescale an array ``(H, W)`` or ``(H, W, 3)`` so that its minimum is black and its maximum white.

    >>> rescale(np.array([[-1.0, 3.0, 1.0]]))[0, :, 0].tolist()
    [0, 255, 128]
    """
    array = np.asarray(array, np.float64)
    low, high = array.min(), array.max()
    array = (array - low) / (high - low) if high > low else np.full_like(array, 0.5)
    return to_rgb(array if array.ndim == 3 else array[..., None])


def diverging(array: Any, largest: float | None = None) -> np.ndarray:
    """Color a signed array ``(H, W)``: positive red, negative blue, 0 white.

    Args:
        array: values to color.
        largest: absolute value of the deepest red and blue; by default the maximum absolute value.

    >>> diverging(np.array([[0.0]]))[0, 0].tolist()
    [247, 246, 246]
    """
    array = np.asarray(array, np.float64)
    largest = float(np.abs(array).max()) if largest is None else largest
    return _apply_colormap("RdBu_r", 0.5 + 0.5 * array / (largest or 1))


def heatmap(array: Any, largest: float | None = None) -> np.ndarray:
    """Color a non-negative array ``(H, W)``: 0 dark, the maximum (or ``largest``) bright.

    >>> heatmap(np.array([[0.0, 1.0]]))[0].tolist()
    [[0, 0, 3], [252, 254, 164]]
    """
    array = np.asarray(array, np.float64)
    return _apply_colormap("inferno", array / ((float(array.max()) if largest is None else largest) or 1))


@named_errors
def overlay(image: Any, array: Any, *, share: float = 0.55) -> np.ndarray:
    """Blend an image, in gray, with a heatmap ``(H, W)`` whose weight is ``share``.

    >>> overlay(np.zeros((2, 2, 1), np.uint8), np.eye(2)).shape
    (2, 2, 3)
    """
    rgb = to_rgb(image)
    if rgb.shape[:2] != np.shape(array):
        raise InputError(f"array must be {rgb.shape[:2]} like the image, got {np.shape(array)}")
    gray = rgb.mean(axis=-1, keepdims=True)
    return np.round((1 - share) * gray + share * heatmap(array)).astype(np.uint8)


def draw_box(image: Any, box: Sequence[tuple[int, int]], *, side: int = 224) -> np.ndarray:
    """Enlarge an image to about ``side`` pixels and frame a box in it; edges outside the image are clipped.

    Args:
        image: image, as for :func:`to_rgb`.
        box: ``(start, stop)`` of the rows and of the columns, as from
            :meth:`jaxconv.shapes.PositionedReceptiveField.bounds`.
        side: approximate length of the longer side; the image is enlarged by an integer factor.

    >>> draw_box(np.zeros((2, 2, 1), np.uint8), ((0, 1), (1, 4)), side=6)[:, :, 0].tolist()[:4]
    [[0, 0, 0, 255, 255, 255], [0, 0, 0, 255, 0, 255], [0, 0, 0, 255, 255, 255], [0, 0, 0, 0, 0, 0]]
    """
    small = to_rgb(image)
    scale = max(1, side // max(small.shape[:2]))
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    edges = [(max(low, 0) * scale, min(high, n) * scale) for (low, high), n in zip(box, small.shape, strict=False)]
    (top, bottom), (left, right) = edges
    thickness = max(1, side // 75)
    line = np.zeros(large.shape[:2], bool)
    line[top:bottom, left:right] = True
    line[top + thickness : bottom - thickness, left + thickness : right - thickness] = False
    large[line] = FRAME
    return large


def tile(pictures: Sequence[Any], columns: int, *, gap: int = 1) -> np.ndarray:
    """Arrange images of equal size in a grid, row by row, with transparent gaps: ``(H, W, 4)``.

    >>> tile([np.zeros((2, 2, 3), np.uint8)] * 3, 2).shape
    (5, 5, 4)
    """
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    grid = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, image in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[top : top + height, left : left + width, :3] = image
        grid[top : top + height, left : left + width, 3] = 255
    return grid


@named_errors
def feature_maps(y: Any, most: int = 64) -> np.ndarray:
    """Draw a layer's output for one image, ``(H, W, C)`` or ``(C,)``, as a grid of channels with transparent gaps.

    Non-negative outputs are bright where large; of signed outputs, positive is red and negative blue. All channels have
    the same scale.

    Args:
        y: output of the layer.
        most: maximum number of channels, the first ones; a vector is drawn in full.

    >>> feature_maps(np.zeros((4, 5, 3))).shape, feature_maps(np.zeros(10)).shape
    ((4, 17, 4), (11, 146, 4))
    """
    y = np.asarray(y, np.float32)
    vector = y.ndim == 1
    planes = np.broadcast_to(y, (11, 11, len(y))) if vector else y[..., :most]
    if planes.ndim != 3:
        raise InputError(f"y must be (H, W, C) or (C,), got {y.shape}")
    largest, num_channels = float(np.abs(y).max()), planes.shape[-1]
    colorize = diverging if y.min() < 0 else heatmap
    columns = 32 if vector else 8 if num_channels <= 32 else 16
    images = [colorize(planes[..., c], largest) for c in range(num_channels)]
    return tile(images, min(num_channels, columns), gap=4 if vector else 1)


def to_data_uri(pixels: np.ndarray, *, colors: int | None = None, **options: Any) -> str:
    """Encode pixels as a PNG in a data URI, for a page without other files.

    Args:
        pixels: ``(H, W, 3)`` uint8, or ``(H, W, 4)`` with transparency.
        colors: maximum number of colors; by default all are kept.
        options: options of Pillow's PNG writer, such as ``optimize=True`` or ``compress_level=1``.

    >>> to_data_uri(np.zeros((2, 3, 3), np.uint8))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if colors is not None:
        image = image.quantize(colors, method=Image.Quantize.FASTOCTREE)
    image.save(buffer, "PNG", **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _apply_colormap(name: str, values: np.ndarray) -> np.ndarray:
    return np.asarray(_colormap(name)(values, bytes=True))[..., :3]


@functools.cache
def _colormap(name: str) -> "Colormap":
    """Return a cached colormap: matplotlib copies it and rebuilds its table each time, which dominates small images."""
    from matplotlib import colormaps

    return colormaps[name]
