"""Pictures from files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

TURNED = range(5, 9)  # the values of EXIF's orientation that swap height and width
NOTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow finds an orientation


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture in a file, as a data set's images are: ``(H, W, C)`` uint8.

    It is turned upright if the camera noted how, laid on white where it is transparent, scaled from 16 bits to 8,
    made grey for one channel, and resized without regard to its proportions.

    Args:
        path: a png, a jpg, or whatever else Pillow reads.
        shape: height, width, and 1 channel for grey or 3 for colour.

    Raises:
        InputError: no such file, not an image, a damaged or a blank one.
    """
    from PIL.Image import Resampling

    height, width, channels = shape
    with _opened(path) as image:
        pixels = _plain(image, path, channels).resize((width, height), Resampling.LANCZOS)
    array = np.asarray(pixels, np.uint8).reshape(shape)
    if array.min() == array.max():
        raise InputError(f"{path} is blank: every pixel is {array.min()} (transparent parts count as white)")
    return array


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """The picture in a file as it is, ``(H, W, channels)`` uint8: :func:`read_image` without resizing."""
    with _opened(path) as image:
        pixels = np.asarray(_plain(image, path, channels), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def image_shape(path: Path) -> tuple[int, int, int]:
    """Height, width and channels (1 for grey, 3 for colour) by the head of the file, which is quickly read."""
    with _opened(path) as image:
        width, height = image.size
        channels = 1 if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16") else 3
        turned = NOTED & image.info.keys() and image.getexif().get(0x0112) in TURNED
    return (width, height, channels) if turned else (height, width, channels)


@contextmanager
def _opened(path: Path) -> "Iterator[Image]":
    """What goes wrong with a picture, in our words."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise InputError(f"there is no image {path}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image that Pillow can read: give a png or a jpg") from None
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # SyntaxError and ValueError are Pillow's, of a broken PNG
        raise InputError(f"{path} cannot be read as an image: {error}") from None


def _plain(image: "Image", path: Path, channels: int) -> "Image":
    """Upright, opaque, 8 bits, grey or colour."""
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, np.uint16) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(f"{path} has pixels of 32 bits, whose white is unknown: save it with 8 or 16 bits")
    if image.has_transparency_data:
        ink = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)
