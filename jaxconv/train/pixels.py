"""Images as numbers for a network: what the pixels are divided by, and whether they are what it is meant for."""

import math
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, RangeWarning

DARKEST = 16  # bytes that nowhere exceed this are counted from 0 to 16, or flags, and no picture from 0 to 255


def to_float(image: Any, scale: float | None = None) -> jax.Array:
    """Bytes as numbers from 0 to 1, on the device: bytes are four times faster to move than floats.

    Args:
        image: images, or one.
        scale: what to divide by, such as 16 for pixels from 0 to 16. By default bytes are divided by 255, and other
            numbers stay as they are, as with 1.

    >>> to_float([0, 8, 16], scale=16)
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    image = jnp.asarray(image)
    if scale is None:
        return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
    return (image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)) / float(scale)


def check_scale(scale: Any) -> None:
    """Refuse a divisor of pixels that is no positive number."""
    if scale is not None and not (checks.is_number(scale) and 0 < scale < math.inf):
        raise InputError(f"scale={scale!r} should be a positive number, what the pixels are divided by, or None")


def check_pixels(who: str, what: str, images: np.ndarray | jax.Array, scale: float | None) -> None:
    """Refuse pixels that are no numbers, and warn of a range that is hardly meant.

    Args:
        who: the function that was given the images.
        what: they are, such as ``"the training images"``.
        images: all of them, of a numpy dtype; what is neither uint8 nor floating is left to the ops.
        scale: as for :func:`to_float`; with one, nothing is said about the range.

    Raises:
        InputError: a pixel is nan or infinite; it names the first such example.

    >>> check_pixels("fit", "images", np.zeros((2, 4, 4, 1), np.float32), None)
    """
    array = np.asarray(images)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not array.size or not (floating or (array.dtype == np.uint8 and scale is None)):
        return
    low, high = float(array.min()), float(array.max())  # nan, if there is one
    if not math.isfinite(low) or not math.isfinite(high):
        raise not_finite(what, array).from_source(who)
    if scale is not None:
        return
    if floating and not -0.01 <= low <= high <= 1.01:  # an image that was resized may go a little beyond
        white = 255 if 100 < high <= 255 else math.ceil(high)
        divide = f"scale={white} divides by {white}, and " if high > 1 else ""
        _warn(f"{who}: {what} go from {low:g} to {high:g}, not from 0 to 1: {divide}scale=1 takes them as they are")
    if not floating and low < high <= DARKEST:
        _warn(f"{who}: {what} go from {low:g} to {high:g} and are divided by 255: scale={high:g} divides by {high:g}")


def not_finite(what: str, images: np.ndarray, numbers: np.ndarray | None = None) -> InputError:
    """Return the error for images with a pixel that is nan or infinite.

    Args:
        what: the images are, as for :func:`check_pixels`.
        images: an array.
        numbers: of the examples, if they are not counted from 0.
    """
    flat = images.reshape(len(images), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    first = bad[0] if numbers is None else numbers[bad[0]]
    values = flat[bad[0]]
    value = values[~np.isfinite(values)][0]
    return InputError(
        f"{what} are not all finite: example {first} has a pixel that is {float(value)}, and so have "
        f"{len(bad):,} of {len(images):,} examples; leave them out, or np.nan_to_num mends them"
    )


def _warn(message: str) -> None:
    """Warn at the line outside of jaxconv that called it: so that the same line is told once."""
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__", "").startswith("jaxconv.") and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(RangeWarning(message), stacklevel=level)
