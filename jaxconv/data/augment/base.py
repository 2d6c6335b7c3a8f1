"""Types of augmentations, and checks of their key, images and options."""

import reprlib
from collections.abc import Callable

import jax

from jaxconv import checks
from jaxconv.errors import InputError

Augment = Callable[[jax.Array, jax.Array], jax.Array]
# ``(key, images, targets) -> (images, targets)`` combines pairs of examples. ``targets`` are class probabilities,
# ``(N, classes)``, initially ``jax.nn.one_hot(label, classes)``.
BatchMixer = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def validate_images(images: jax.Array) -> jax.Array:
    """Return images as a jax array; raise InputError unless they are a batch of floating-point images."""
    images = checks.as_array(images=images)
    checks.floating_dtype(images=images)
    if images.ndim != 4 or 0 in images.shape[1:3]:
        fix = ": add the batch axis, images[None], or the channel axis, images[..., None]" if images.ndim == 3 else ""
        raise InputError(f"images {images.shape} should be (N, H, W, C), of at least one pixel{fix}")
    return images


def split_key(key: jax.Array, num: int) -> jax.Array:
    """Split a key into ``num`` keys; raise InputError if it is not a key."""
    try:
        return jax.random.split(key, num)
    except (TypeError, ValueError):
        raise InputError(f"key should be one jax.random.key(…), not {reprlib.repr(key)}") from None


def check_range(minimum: float, maximum: float, **options: float) -> None:
    """Raise InputError for an option that is not a number from ``minimum`` to ``maximum``.

    >>> check_range(0, 1, p=0.5)
    """
    for option, value in options.items():
        if not checks.is_number(value) or not minimum <= value <= maximum:
            raise InputError(f"{option}={value!r} should be a number from {minimum} to {maximum}")
