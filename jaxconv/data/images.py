"""Read images from files; the package calls Pillow's readers only in :func:`open_image`."""

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

# A subset of Pillow's formats: EPS starts Ghostscript, and the readers of rare formats raise unusual errors.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_BYTES = 2**29
MAX_PIXELS = 89_478_485  # Pillow's limit, above which it warns of a decompression bomb
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F"}  # and I;16…
TRANSPOSED_ORIENTATIONS = range(5, 9)  # EXIF orientations that swap height and width
ORIENTATION_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # metadata that Pillow searches for it
# Packing of a PNG's gray samples: the largest sample, and the factor by which Pillow scales samples to 8 bits.
PNG_GRAY = {"1": (1, 255), "L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}
WHITE_IS_ZERO = 0  # value of the TIFF tag PhotometricInterpretation


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read an image file in the form of a dataset's images, ``(H, W, C)`` uint8.

    The image is rotated upright by its EXIF orientation, composited on white where it is transparent, scaled from 16
    bits to 8, converted to grayscale for one channel, and resized without preserving its aspect ratio.

    Args:
        path: PNG, JPEG, GIF (first frame), BMP, WebP, TIFF or PPM file; its suffix does not matter.
        shape: height, width, and 1 channel for grayscale or 3 for color.

    Raises:
        InputError: if the file is missing, not an image in one of these formats, damaged, too large or blank.
    """
    from PIL.Image import Resampling

    height, width, channels = shape
    with open_image(path) as image:
        pixels = _normalize(image, path, channels).resize((width, height), Resampling.LANCZOS)
    array = np.asarray(pixels, np.uint8).reshape(shape)
    if array.min() == array.max():
        raise InputError(f"{path} is blank: every pixel is {array.min()} (transparent parts count as white)")
    return array


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Read an image file in its own size, ``(H, W, channels)`` uint8: :func:`read_image` without resizing."""
    with open_image(path) as image:
        pixels = np.asarray(_normalize(image, path, channels), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def read_image_shape(path: Path) -> tuple[int, int, int]:
    """Read height, width and channels (1 for grayscale, 3 for color) from the file's header, without decoding it."""
    with open_image(path) as image:
        width, height = image.size
        channels = 1 if image.mode in ("1", "L", "LA", "La", "I") or image.mode.startswith("I;16") else 3
        transposed = ORIENTATION_KEYS & image.info.keys() and image.getexif().get(0x0112) in TRANSPOSED_ORIENTATIONS
    return (width, height, channels) if transposed else (height, width, channels)


@contextmanager
def open_image(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> "Iterator[ImageFile]":
    """Open an image for a ``with`` block; every error, also one raised in the block, becomes an ``InputError``.

    Pillow decodes on the first access to the pixels, so access them within the block.

    Args:
        source: file, or the bytes of one, in a format of ``FORMATS`` and of at most 512 MiB.
        max_pixels: largest height × width; it is checked before decoding.

    Raises:
        InputError: if the file is missing, a pipe, a device or a folder, not an image, damaged or too large.

    >>> with open_image(b"P5 2 1 255 ab") as image:
    ...     np.asarray(image)
    array([[97, 98]], dtype=uint8)
    >>> with open_image(b"P5 2 1 255 a") as image:
    ...     np.asarray(image)
    Traceback (most recent call last):
    jaxconv.errors.InputError: the image data cannot be read as an image: image file is truncated (1 bytes not
        processed)
    """
    from PIL import Image, UnidentifiedImageError

    name = "the image data" if isinstance(source, bytes) else str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size > MAX_BYTES:
                raise InputError(f"{name} has {size:,} bytes; the limit is {MAX_BYTES:,}: save it smaller")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise InputError(
                        f"{name} has {width:,}×{height:,} pixels; the limit is {max_pixels:,}: save it smaller"
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
    except Exception as error:  # Pillow raises many types for damaged images, also MemoryError
        raise InputError(f"{name} cannot be read as an image: {error_line(error):.200}") from error


def _normalize(image: "ImageFile", path: Path, channels: int) -> "Image":
    """Return the image upright, opaque, with 8 bits per channel, in grayscale or color."""
    from PIL import Image, ImageOps

    packing = str(image.tile[0][3]) if image.format == "PNG" and image.tile else None  # decoding clears image.tile
    ImageOps.exif_transpose(image, in_place=True)
    converted: Image.Image = image
    # Pillow scales the samples of a PPM to 16 bits.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if not has_16_bits and image.mode not in MODES:
        raise InputError(f"{path} has the color mode {image.mode}, which is not supported: save it as RGB")
    if not has_16_bits and image.mode in ("I", "F"):
        raise InputError(f"{path} has 32-bit pixels, whose value of white is unknown: save it with 8 or 16 bits")
    if has_16_bits:
        converted = _from_16_bits(image)
    elif packing and "transparency" in image.info:
        _scale_transparent_color(image, packing, path)
    if converted.has_transparency_data:
        foreground = converted.convert("RGBA")
        converted = Image.alpha_composite(Image.new("RGBA", foreground.size, "white"), foreground)
    mode = "L" if channels == 1 else "RGB"
    return converted if converted.mode == mode else converted.convert(mode)


def _from_16_bits(image: "ImageFile") -> "Image":
    """Convert 16-bit gray to 8 bits, and the transparent color, which Pillow supports for 8 bits only, to white."""
    from PIL import Image

    samples = np.asarray(image).astype(np.uint16)
    if image.format == "TIFF" and image.tag_v2.get(262) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
        samples = 65_535 - samples  # Pillow inverts only 8-bit samples
    gray = (samples // 257).astype(np.uint8)
    if "transparency" in image.info:
        gray[samples == image.info["transparency"]] = 255
    return Image.fromarray(gray)


def _scale_transparent_color(image: "Image", packing: str, path: Path) -> None:
    """Scale a PNG's transparent color to 8 bits, as Pillow scales the pixels; only the low bits of the depth count."""
    color = image.info["transparency"]
    if packing == "RGB;16B":
        raise InputError(
            f"{path} has 16 bits per channel and a transparent color, of which Pillow keeps 8: save it with an alpha "
            "channel, or with 8 bits"
        )
    if packing in PNG_GRAY:
        largest, factor = PNG_GRAY[packing]
        image.info["transparency"] = (color & largest) * factor
    elif packing == "RGB":
        image.info["transparency"] = tuple(sample & 255 for sample in color)
