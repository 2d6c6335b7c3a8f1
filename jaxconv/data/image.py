"""Pictures from files."""

from pathlib import Path

import numpy as np

from jaxconv.errors import InputError


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
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image, np.uint16) // 257).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise InputError(f"{path} has pixels of 32 bits, whose white is unknown: save it with 8 or 16 bits")
            if image.has_transparency_data:
                ink = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)
            pixels = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.LANCZOS)
    except FileNotFoundError:
        raise InputError(f"there is no image {path}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image that Pillow can read: give a png or a jpg") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from None
    array = np.asarray(pixels, np.uint8).reshape(shape)
    if array.min() == array.max():
        raise InputError(f"{path} is blank: every pixel is {array.min()} (transparent parts count as white)")
    return array
