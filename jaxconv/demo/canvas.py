"""Preprocessing of drawings and uploads: conversion to the style of the dataset that the network was trained on."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxconv import data
from jaxconv.data.images import open_image, read_image_shape
from jaxconv.errors import InputError


class InputStyle(NamedTuple):
    """Style of a dataset's images, which decides how a drawing is converted.

    Attributes:
        box: white strokes on black, cropped to the strokes; the longer side becomes this fraction of the frame, and the
            drawing is centered by its center of mass. None converts the whole canvas without cropping.
        beyond: offset of the center of mass below and to the right of the frame's center, in pixels.
        inverted: for a whole canvas, white strokes on black.
    """

    box: float | None
    beyond: float = 0.0
    inverted: bool = False


MAX_CANVAS_PIXELS = 4_000_000  # the page's canvas has far fewer

MNIST = InputStyle(20 / 28, beyond=0.5)  # the mean center of mass of its images is pixel 14.0, not 13.5
DIGITS = InputStyle(1.0)  # its digits fill the height of the frame, and their mean center of mass is pixel 3.6


def input_style_of(dataset: str, channels: int) -> InputStyle:
    """Look up the style of a dataset by its name.

    Args:
        dataset: dataset name, such as ``mnist``, ``digits``, ``tfds:emnist`` or ``folder:pictures``.
        channels: number of channels of its images.

    >>> digits, clothes = (input_style_of(name, 1) for name in ("mnist", "fashion_mnist"))
    >>> digits.box == 20 / 28, clothes.inverted, input_style_of("cifar10", 3).box
    (True, True, None)
    """
    name = dataset.lower()
    if channels != 1:
        return InputStyle(None)
    if "fashion" in name:
        return InputStyle(None, inverted=True)
    if "mnist" in name:
        return MNIST
    return DIGITS if name == "digits" else InputStyle(None)


def read_canvas(address: str | None) -> np.ndarray | None:
    """Decode the canvas, a PNG in a data URI: ``(H, W, 4)`` uint8, or None for a clean canvas.

    Raises:
        InputError: if it is not an image, is damaged, or exceeds 4 million pixels; such an image is not decoded.

    >>> read_canvas("")
    """
    if not address:
        return None
    try:
        content = base64.b64decode(address.partition(",")[2], validate=True)
        with open_image(content, max_pixels=MAX_CANVAS_PIXELS) as image:
            return np.asarray(image.convert("RGBA"))
    except ValueError as error:  # from base64, or an InputError
        raise InputError(f"the canvas: {error}") from None


def preprocess_drawing(canvas: Any, shape: tuple[int, int, int], manner: InputStyle) -> np.ndarray | None:
    """Convert a drawing to an image of the dataset, or None if the canvas is empty.

    Args:
        canvas: ``(H, W, 4)`` uint8, transparent where nothing is drawn.
        shape: shape of the dataset's images.
        manner: style of the dataset, from :func:`input_style_of`.

    Returns:
        ``shape`` uint8.

    Lecture row 004-15.

    >>> canvas = np.zeros((40, 40, 4), np.uint8)
    >>> canvas[4:36, 10:18] = 0, 0, 0, 255
    >>> preprocess_drawing(canvas, (8, 8, 1), DIGITS)[3, :, 0]
    array([  0,   0,   0, 255, 255,   0,   0,   0], dtype=uint8)
    >>> preprocess_drawing(np.zeros((40, 40, 4), np.uint8), (8, 8, 1), DIGITS)
    """
    canvas = np.asarray(canvas)
    if not canvas[..., 3].any():
        return None
    if manner.box is not None:
        return center_by_mass(canvas[..., 3], shape[:2], manner.box, manner.beyond)[..., None]
    from PIL import Image

    drawing = Image.fromarray(canvas, "RGBA")
    background = Image.new("RGBA", drawing.size, "white")
    flattened = Image.alpha_composite(background, drawing).convert("L" if shape[2] == 1 else "RGB")
    image = np.asarray(flattened.resize(shape[1::-1], Image.Resampling.LANCZOS)).reshape(shape)
    return 255 - image if manner.inverted else image


def center_by_mass(strokes: np.ndarray, size: tuple[int, int], box: float, beyond: float = 0.0) -> np.ndarray:
    """Crop the strokes, scale them to a box with their proportions kept, and center them by their center of mass.

    LeCun et al.'s digits fit a box of 20×20 pixels, and their center of mass is the center of a frame of 28×28. Here it
    is within half a pixel of that, unless strokes would then leave the frame.
    Source: http://yann.lecun.com/exdb/mnist/

    Args:
        strokes: ``(H, W)`` uint8, 0 where nothing is drawn.
        size: height and width of the frame.
        box: longer side of the strokes, as a fraction of the frame's shorter side.
        beyond: offset of the center of mass below and to the right of the frame's center, in pixels.

    Returns:
        ``size`` uint8.

    >>> strokes = np.zeros((50, 50), np.uint8)
    >>> strokes[:20, :10] = 255
    >>> center_by_mass(strokes, (28, 28), 20 / 28).nonzero()[0][[0, -1]]
    array([ 4, 23])
    """
    from PIL import Image

    rows, columns = (np.flatnonzero(strokes.any(axis=axis)) for axis in (1, 0))
    crop = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = box * min(size)
    height, width = (max(1, round(side * n / max(crop.shape))) for n in crop.shape)
    small = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
    frame = np.zeros(size, np.uint8)
    mass = small.sum()
    if not mass:  # strokes too thin to survive the scaling
        return frame
    offsets = []
    for axis, (inner, outer) in enumerate(zip(small.shape, size, strict=True)):
        center = (small.sum(axis=1 - axis) * np.arange(inner)).sum() / mass
        offsets.append(int(np.clip(np.floor((outer - 1) / 2 + beyond - center + 0.5), 0, outer - inner)))
    frame[offsets[0] : offsets[0] + height, offsets[1] : offsets[1] + width] = small
    return frame


def preprocess_upload(path: Path, shape: tuple[int, int, int], *, invert: bool = False) -> tuple[np.ndarray, str]:
    """Read an image file as an image of the dataset, with a note on its conversion.

    Args:
        path: image file, as for :func:`jaxconv.data.read_image`.
        shape: shape of the dataset's images.
        invert: swap dark and bright, for dark strokes on a light background.

    Raises:
        InputError: if the file is not an image, or is damaged, too large or blank.
    """
    name, describe = path.name, lambda shape: f"{shape[0]}×{shape[1]} {'gray' if shape[2] == 1 else 'color'}"
    try:
        original_shape = read_image_shape(path)
        image = data.read_image(path, shape)
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None  # hides the server's temporary folder
    if original_shape != shape:
        note = f"resized from {describe(original_shape)} to {describe(shape)}"
    else:
        note = f"{describe(shape)}, not resized"
    return 255 - image if invert else image, f"{name}: {note}{', dark and bright swapped' if invert else ''}"
