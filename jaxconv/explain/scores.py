"""The one number of a network that is asked about: what every attribution explains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError

Score = Callable[[jax.Array], jax.Array]  # of a layer's output (N, …), one number an image, (N,)


def strongest(channel: int) -> Score:
    """The score of one filter of a layer: its strongest answer anywhere in the image.

    Args:
        channel: the filter's number.

    >>> strongest(1)(jnp.array([[[[1., 5.]], [[9., 7.]]]]))
    Array([7.], dtype=float32)
    """

    def score(y: jax.Array) -> jax.Array:
        if y.ndim < 2 or not 0 <= channel < y.shape[-1]:
            raise InputError(f"strongest: channel {channel} is none of the {y.shape[-1]} of {y.shape}")
        return y[..., channel].reshape(len(y), -1).max(axis=1)

    return score


def chosen(function: str, y: jax.Array, label: Any = None, score: Score | None = None) -> jax.Array:
    """What is asked about of an output ``(N, …)``, one number an image: the logit of a class, or what ``score`` makes.

    Raises:
        InputError: an output that is no row of classes, and no score; a label outside the classes.

    >>> chosen("saliency", jnp.array([[1., 3.], [5., 4.]])), chosen("saliency", jnp.array([[1., 3.], [5., 4.]]), 0)
    (Array([3., 5.], dtype=float32), Array([1., 5.], dtype=float32))
    """
    if score is not None:
        if label is not None:
            raise InputError(f"{function}: label and score both say what to ask about: give one")
        picked = score(y)
        if picked.shape != y.shape[:1]:
            raise InputError(f"{function}: score makes {picked.shape} of {y.shape}; one number an image is wanted")
        return picked
    if y.ndim != 2 or y.shape[1] < 2:
        raise InputError(
            f"{function}: an output {y.shape} has no scores of classes; say what to ask about, with a score that makes "
            "one number an image of it: score=lambda y: y[:, 0], or explain.strongest(channel)"
        )
    return jnp.take_along_axis(y, classes(function, y, label)[:, None], axis=1)[:, 0]


def classes(function: str, logits: jax.Array, label: Any = None) -> jax.Array:
    """The class that is asked about of each image, ``(N,)``: the label, checked, or the likeliest."""
    if label is None:
        return jnp.argmax(logits, axis=1)
    given, label = label, jnp.asarray(label)
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape not in ((), (len(logits),)):
        raise InputError(
            f"{function}: label {label.dtype}{label.shape} should be a class number, or one for each of the "
            f"{len(logits)} images"
        )
    checks.known_classes(function, given, logits.shape[1])
    return jnp.broadcast_to(checks.class_numbers(label, logits.shape[1]), len(logits))
