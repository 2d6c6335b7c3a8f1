"""What every augmentation asks of its key, its images and its options."""

import reprlib
from collections.abc import Callable

import jax

from jaxconv import checks
from jaxconv.errors import InputError

Augment = Callable[[jax.Array, jax.Array], jax.Array]
# ``(key, images, targets) -> (images, targets)``: the images of two examples in one, and their targets; ``targets`` is
# ``(N, classes)``, the share of each class, which sum to 1: at first ``jax.nn.one_hot(label, classes)``.
BatchMixer = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def batch(images: jax.Array) -> jax.Array:
    """Refuse what is no batch of floating images."""
    images = checks.as_array(images=images)
    checks.floating_dtype(images=images)
    if images.ndim != 4 or 0 in images.shape[1:3]:
        fix = ": add the batch axis, images[None], or the channel axis, images[..., None]" if images.ndim == 3 else ""
        raise InputError(f"images {images.shape} should be (N, H, W, C), of at least one pixel{fix}")
    return images


def keys(key: jax.Array, count: int) -> jax.Array:
    """So many keys from one; refuse what is none."""
    try:
        return jax.random.split(key, count)
    except (TypeError, ValueError):
        raise InputError(f"key should be one jax.random.key(…), not {reprlib.repr(key)}") from None


def within(least: float, most: float, **options: float) -> None:
    """Refuse an option that is no number, or out of range.

    >>> within(0, 1, p=0.5)
    """
    for option, value in options.items():
        if not checks.is_number(value) or not least <= value <= most:
            raise InputError(f"{option}={value!r} should be a number from {least} to {most}")
