"""Conversion of pixels to floats, and checks of their range."""

import math
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, RangeWarning

MAX_SMALL_RANGE = 16  # bytes that never exceed this are counts from 0 to 16 or flags, not pixels from 0 to 255


def to_float(image: Any, scale: float | None = None) -> jax.Array:
    """Convert pixels to floats on the device, by default uint8 to [0, 1]: bytes transfer four times faster than floats.

    Args:
        image: one image or several.
        scale: divisor, such as 16 for pixels from 0 to 16. By default uint8 is divided by 255, and other dtypes stay
            unchanged.

    >>> to_float([0, 8, 16], scale=16)
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    image = jnp.asarray(image)
    if scale is None:
        return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
    return (image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)) / float(scale)


def check_scale(scale: Any) -> None:
    """Raise InputError unless the divisor of the pixels is None or a positive finite number."""
    if scale is not None and not (checks.is_number(scale) and 0 < scale < math.inf):
        raise InputError(f"scale={scale!r} should be a positive number, the divisor of the pixels, or None")


def check_pixels(caller: str, description: str, images: np.ndarray | jax.Array, scale: float | None) -> None:
    """Raise InputError for pixels that are not finite, and warn if their range is unusual.

    Args:
        caller: name of the function for messages.
        description: subject of the messages, such as ``"the training images"``.
        images: images of a NumPy dtype; only uint8 and floats are checked.
        scale: divisor, as for :func:`to_float`; if given, the range is not checked.

    Raises:
        InputError: if a pixel is nan or infinite; the message names the first such example.

    >>> check_pixels("fit", "images", np.zeros((2, 4, 4, 1), np.float32), None)
    """
    array = np.asarray(images)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not array.size or not (floating or (array.dtype == np.uint8 and scale is None)):
        return
    low, high = float(array.min()), float(array.max())  # nan, if there is one
    if not math.isfinite(low) or not math.isfinite(high):
        raise nonfinite_pixels_error(description, array).from_source(caller)
    if scale is not None:
        return
    if floating and not -0.01 <= low <= high <= 1.01:  # resizing may overshoot a little
        maximum = 255 if 100 < high <= 255 else math.ceil(high)
        advice = f"scale={maximum} divides by {maximum}, and " if high > 1 else ""
        _warn(
            f"{caller}: {description} range from {low:g} to {high:g}, not from 0 to 1: "
            f"{advice}scale=1 keeps them unchanged"
        )
    if not floating and low < high <= MAX_SMALL_RANGE:
        _warn(
            f"{caller}: {description} range from {low:g} to {high:g} and are divided by 255: "
            f"scale={high:g} divides by {high:g}"
        )


def nonfinite_pixels_error(description: str, images: np.ndarray, indices: np.ndarray | None = None) -> InputError:
    """Return the error for images with a pixel that is nan or infinite.

    Args:
        description: subject of the message, as for :func:`check_pixels`.
        images: an array with at least one such pixel.
        indices: numbers of the images in the dataset; by default 0 to N − 1.
    """
    flat = images.reshape(len(images), -1)
    nonfinite = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    example = nonfinite[0] if indices is None else indices[nonfinite[0]]
    values = flat[nonfinite[0]]
    value = values[~np.isfinite(values)][0]
    return InputError(
        f"{description} must be finite: example {example} has a pixel that is {float(value)}, as have "
        f"{len(nonfinite):,} of {len(images):,} examples; leave them out, or replace the values with np.nan_to_num"
    )


def _warn(message: str) -> None:
    """Warn with the location of the caller outside of jaxconv, so that Python shows the warning once per line."""
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__", "").startswith("jaxconv.") and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(RangeWarning(message), stacklevel=level)
