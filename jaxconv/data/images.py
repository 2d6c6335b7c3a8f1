"""Pictures from files: :func:`open_picture` is the one place of the package that lets Pillow read."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.errors import InputError
from jaxconv.utils.files import open_file
from jaxconv.utils.terminal import error_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# Not all that Pillow reads: EPS starts Ghostscript, and the readers of rare formats fail in ways of their own.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MOST_BYTES = 2**29
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F"}  # and I;16…
TURNED = range(5, 9)  # the values of EXIF's orientation that swap height and width
NOTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow finds an orientation
# By the packing of a PNG's grey samples: the largest, and the factor by which Pillow brings them to 8 bits.
PNG_GREY = {"1": (1, 255), "L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}
WHITE_IS_ZERO = 0  # of TIFF's tag PhotometricInterpretation


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture in a file, as a data set's images are: ``(H, W, C)`` uint8.

    It is turned upright if the camera noted how, laid on white where it is transparent, scaled from 16 bits to 8,
    made grey for one channel, and resized without regard to its proportions.

    Args:
        path: a PNG, JPEG, GIF (its first frame), BMP, WebP, TIFF or PPM, whatever its name ends with.
        shape: height, width, and 1 channel for grey or 3 for colour.

    Raises:
        InputError: no such file, not an image in one of these formats, a damaged, a huge or a blank one.
    """
    from PIL.Image import Resampling

    height, width, channels = shape
    with open_picture(path) as image:
        pixels = _plain(image, path, channels).resize((width, height), Resampling.LANCZOS)
    array = np.asarray(pixels, np.uint8).reshape(shape)
    if array.min() == array.max():
        raise InputError(f"{path} is blank: every pixel is {array.min()} (transparent parts count as white)")
    return array


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """The picture in a file as it is, ``(H, W, channels)`` uint8: :func:`read_image` without resizing."""
    with open_picture(path) as image:
        pixels = np.asarray(_plain(image, path, channels), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def read_image_shape(path: Path) -> tuple[int, int, int]:
    """Height, width and channels (1 for grey, 3 for colour) by the head of the file, which is quickly read."""
    with open_picture(path) as image:
        width, height = image.size
        channels = 1 if image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16") else 3
        turned = NOTED & image.info.keys() and image.getexif().get(0x0112) in TURNED
    return (width, height, channels) if turned else (height, width, channels)


@contextmanager
def open_picture(source: Path | bytes, *, most_pixels: int = MOST_PIXELS) -> "Iterator[ImageFile]":
    """Open a picture for the block that follows. Whatever is wrong with it, there too, is one ``InputError``.

    Pillow decodes when the pixels are first used, so use them in the block.

    Args:
        source: a file, or the bytes of one, of a format in ``FORMATS`` and at most 512 MiB.
        most_pixels: the largest height × width; more is refused before anything is decoded.

    Raises:
        InputError: no such file, a pipe, a device or a folder, not a picture, a damaged or a huge one.

    >>> with open_picture(b"P5 2 1 255 ab") as image:
    ...     np.asarray(image)
    array([[97, 98]], dtype=uint8)
    >>> with open_picture(b"P5 2 1 255 a") as image:
    ...     np.asarray(image)
    Traceback (most recent call last):
    jaxconv.errors.InputError: the picture cannot be read as an image: image file is truncated (1 bytes not processed)
    """
    from PIL import Image, UnidentifiedImageError

    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size > MOST_BYTES:
                raise InputError(f"{name} has {size:,} bytes; a picture may have {MOST_BYTES:,}: save it smaller")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > most_pixels:
                    raise InputError(
                        f"{name} has {width:,}×{height:,} pixels; a picture may have {most_pixels:,}: save it smaller"
                    )
                yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no image {name}") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not an image that Pillow can read as {', '.join(FORMATS)}: give a png or a jpg"
        ) from None
    except Exception as error:  # of damaged pictures Pillow raises nearly anything, MemoryError too
        raise InputError(f"{name} cannot be read as an image: {error_line(error):.200}") from error


def _plain(image: "ImageFile", path: Path, channels: int) -> "Image":
    """Upright, opaque, 8 bits, grey or colour."""
    from PIL import Image, ImageOps

    packing = str(image.tile[0][3]) if image.format == "PNG" and image.tile else None  # forgotten once it is decoded
    ImageOps.exif_transpose(image, in_place=True)
    shown: Image.Image = image
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")  # Pillow scales PPM's to 16
    if not deep and image.mode not in MODES:
        raise InputError(f"{path} has the colours {image.mode}, which are not converted here: save it as RGB")
    if not deep and image.mode in ("I", "F"):
        raise InputError(f"{path} has pixels of 32 bits, whose white is unknown: save it with 8 or 16 bits")
    if deep:
        shown = _from_16_bits(image)
    elif packing and "transparency" in image.info:
        _mend_transparent_colour(image, packing, path)
    if shown.has_transparency_data:
        ink = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)
    mode = "L" if channels == 1 else "RGB"
    return shown if shown.mode == mode else shown.convert(mode)


def _from_16_bits(image: "ImageFile") -> "Image":
    """Grey of 8 bits, white where the samples are the transparent colour. Pillow compares that with 8 bits only."""
    from PIL import Image

    samples = np.asarray(image).astype(np.uint16)
    if image.format == "TIFF" and image.tag_v2.get(262) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
        samples = 65_535 - samples  # which Pillow does with 8 bits only
    grey = (samples // 257).astype(np.uint8)
    if "transparency" in image.info:
        grey[samples == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _mend_transparent_colour(image: "Image", packing: str, path: Path) -> None:
    """Bring a PNG's transparent colour to 8 bits, as Pillow brings the pixels; bits beyond the depth do not count."""
    colour = image.info["transparency"]
    if packing == "RGB;16B":
        raise InputError(
            f"{path} has 16 bits a channel and a transparent colour, of which Pillow keeps 8: save it with an alpha "
            "channel, or with 8 bits"
        )
    if packing in PNG_GREY:
        largest, factor = PNG_GREY[packing]
        image.info["transparency"] = (colour & largest) * factor
    elif packing == "RGB":
        image.info["transparency"] = tuple(sample & 255 for sample in colour)
