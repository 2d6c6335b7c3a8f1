"""What comes from a drawing: brought to the manner of the data set that the network learned from."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxconv import data
from jaxconv.data.images import open_image, read_image_shape
from jaxconv.errors import InputError


class InputStyle(NamedTuple):
    """How a data set shows its images, and so what is to be done with a drawing.

    Attributes:
        box: white ink on black, cropped to the ink, whose longer side becomes this share of the frame; it is centred by
            its centre of mass. None takes the whole canvas as it is.
        beyond: how many pixels below and to the right of the frame's middle that centre lies.
        inverted: of a whole canvas, white ink on black.
    """

    box: float | None
    beyond: float = 0.0
    inverted: bool = False


MOST_DRAWN = 4_000_000  # pixels; the page's canvas has far fewer

MNIST = InputStyle(20 / 28, beyond=0.5)  # in its images the mean centre of mass is pixel 14.0, not 13.5
DIGITS = InputStyle(1.0)  # theirs are as high as the frame, and 3.6


def input_style_of(dataset: str, channels: int) -> InputStyle:
    """The manner of a data set, by its name.

    Args:
        dataset: ``mnist``, ``digits``, ``tfds:emnist``, ``folder:pictures``, …
        channels: of its images.

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
    """What the page sends of its canvas, a PNG written out as an address: ``(H, W, 4)`` uint8; None for a clean one.

    Raises:
        InputError: no picture, a damaged one, or one of more than 4 million pixels, which is not decoded.

    >>> read_canvas("")
    """
    if not address:
        return None
    try:
        written = base64.b64decode(address.partition(",")[2], validate=True)
        with open_image(written, max_pixels=MOST_DRAWN) as image:
            return np.asarray(image.convert("RGBA"))
    except ValueError as error:  # of base64, or an InputError
        raise InputError(f"the canvas: {error}") from None


def preprocess_drawing(canvas: Any, shape: tuple[int, int, int], manner: InputStyle) -> np.ndarray | None:
    """A drawing as an image of a data set, or None where there is no ink.

    Args:
        canvas: ``(H, W, 4)`` uint8, transparent where nothing was drawn.
        shape: of the data set's images.
        manner: from :func:`input_style_of`.

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

    ink = Image.fromarray(canvas, "RGBA")
    paper = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink).convert("L" if shape[2] == 1 else "RGB")
    image = np.asarray(paper.resize(shape[1::-1], Image.Resampling.LANCZOS)).reshape(shape)
    return 255 - image if manner.inverted else image


def center_by_mass(ink: np.ndarray, size: tuple[int, int], box: float, beyond: float = 0.0) -> np.ndarray:
    """Ink as MNIST has it: cropped, made to fit a box with its proportions kept, centred in the frame.

    LeCun et al.'s digits fit a box of 20×20 pixels, and lie in a frame of 28×28 so that the centre of mass of their
    pixels is the frame's centre. Here it is so to half a pixel, unless ink would then leave the frame.
    Source: http://yann.lecun.com/exdb/mnist/

    Args:
        ink: ``(H, W)`` uint8, 0 where there is none.
        size: height and width of the frame.
        box: the longer side of the ink, as a share of the frame's shorter side.
        beyond: how many pixels below and to the right of the frame's middle to put the centre of mass.

    Returns:
        ``size`` uint8.

    >>> ink = np.zeros((50, 50), np.uint8)
    >>> ink[:20, :10] = 255
    >>> center_by_mass(ink, (28, 28), 20 / 28).nonzero()[0][[0, -1]]
    array([ 4, 23])
    """
    from PIL import Image

    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = box * min(size)
    height, width = (max(1, round(side * n / max(crop.shape))) for n in crop.shape)
    small = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
    frame = np.zeros(size, np.uint8)
    mass = small.sum()
    if not mass:  # so little ink that none is left at this size
        return frame
    places = []
    for axis, (inner, outer) in enumerate(zip(small.shape, size, strict=True)):
        centre = (small.sum(axis=1 - axis) * np.arange(inner)).sum() / mass
        places.append(int(np.clip(np.floor((outer - 1) / 2 + beyond - centre + 0.5), 0, outer - inner)))
    frame[places[0] : places[0] + height, places[1] : places[1] + width] = small
    return frame


def preprocess_upload(path: Path, shape: tuple[int, int, int], *, invert: bool = False) -> tuple[np.ndarray, str]:
    """An image file as an image of a data set, and a line that says what was done to it.

    Args:
        path: whatever :func:`jaxconv.data.read_image` reads.
        shape: of the data set's images.
        invert: swap dark and bright, for dark ink on white paper.

    Raises:
        InputError: not an image, a damaged, a huge or a blank one.
    """
    name, shown = path.name, lambda shape: f"{shape[0]}×{shape[1]}{' grey' if shape[2] == 1 else ' in colour'}"
    try:
        before = read_image_shape(path)
        image = data.read_image(path, shape)
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None  # the user gave it no folder
    done = f"resized from {shown(before)} to {shown(shape)}" if before != shape else f"{shown(shape)}, taken as it is"
    return 255 - image if invert else image, f"{name}: {done}{', dark and bright swapped' if invert else ''}"
