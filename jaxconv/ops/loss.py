"""What training makes small."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxconv.errors import InputError
from jaxconv.ops import checks


def softmax_cross_entropy(
    logits: Float[Array, "n k"], label: Int[Array, " n"] | Float[Array, "n k"]
) -> Float[Array, " n"]:
    """How surprised the network is by the true class: ``loss[n] = log Σ_j exp(logits[n, j]) − logits[n, label[n]]``.

    From logits, not probabilities, so it is finite however sure the network is (optax's).

    Args:
        logits: the outputs before softmax.
        label: class numbers, or one row of probabilities an example (one-hot, or smoothed).

    Raises:
        InputError: a label of another shape, or a class number that is none of the k. While tracing, numbers cannot be
            seen: then such a label makes a loss of NaN, without a gradient.

    Lecture rows 001-19, 004-21.

    >>> softmax_cross_entropy(jnp.array([[0., 0.], [-200., 200.]]), jnp.array([0, 1]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    import optax  # which takes a quarter as long to import as jax, and of all ops only this one needs it

    given = label
    logits, label = checks.arrays("softmax_cross_entropy", logits=logits, label=label)
    checks.floating("softmax_cross_entropy", logits=logits)
    if logits.ndim != 2:
        raise InputError(f"softmax_cross_entropy: logits {logits.shape} should be (N, classes)")
    if jnp.issubdtype(label.dtype, jnp.floating) and label.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, label)
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape != logits.shape[:1]:
        raise InputError(
            f"softmax_cross_entropy: label {label.dtype}{label.shape} should be class numbers, int{logits.shape[:1]}, "
            f"or probabilities, {logits.dtype}{logits.shape}"
        )
    classes = logits.shape[1]
    if not isinstance(given, jax.core.Tracer):  # label itself may be traced, where a jit knows what was given
        wrong = np.setdiff1d(given, np.arange(classes))
        if wrong.size:
            raise InputError(f"softmax_cross_entropy: label {wrong[0]} is none of the {classes} classes of logits")
    known = (label >= 0) & (label < classes)  # a label of −1 would be read as the last class
    return jnp.where(known, optax.softmax_cross_entropy_with_integer_labels(logits, label), jnp.nan)


def correct(logits: Float[Array, "n k"], label: Int[Array, " n"]) -> jax.Array:
    """Whether the largest logit is the true class: the mean of it is the accuracy. NaN is never right.

    >>> correct(jnp.array([[0., 1.], [2., 1.]]), jnp.array([1, 1]))
    Array([ True, False], dtype=bool)
    """
    return (jnp.argmax(logits, axis=-1) == label) & ~jnp.isnan(logits).any(axis=-1)
