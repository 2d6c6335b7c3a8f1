"""What training makes small."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


@named_errors
def softmax_cross_entropy(
    logits: Float[Array, "n *places k"], label: Int[Array, "n *places"] | Float[Array, "n *places k"]
) -> Float[Array, "n *places"]:
    """How surprised the network is by the true class: ``loss[n] = log Σ_j exp(logits[n, j]) − logits[n, label[n]]``.

    From logits, not probabilities, so it is finite however sure the network is (optax's).

    Args:
        logits: the outputs before softmax, ``(N, classes)``, or of every pixel, ``(N, H, W, classes)``.
        label: class numbers, integers of any size, or one row of probabilities for each (one-hot, or smoothed).

    Returns:
        One number for each row of logits.

    Raises:
        InputError: a label of another shape, or a class number that is none of the k. While tracing, numbers cannot be
            seen: then such a label makes a loss of NaN, without a gradient.

    Lecture rows 001-19, 004-21.

    >>> softmax_cross_entropy(jnp.array([[0., 0.], [-200., 200.]]), jnp.array([0, 1]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    import optax  # which takes a quarter as long to import as jax, and of all ops only this one needs it

    given = label
    logits, label = checks.as_arrays(logits=logits, label=label)
    checks.floating_dtype(logits=logits)
    if logits.ndim < 2:
        raise InputError(f"logits {logits.shape} should be (N, classes), or (N, …, classes)")
    if jnp.issubdtype(label.dtype, jnp.floating) and label.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, label)
    *places, classes = logits.shape
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape != tuple(places):
        raise InputError(
            f"label {label.dtype}{label.shape} should be class numbers, int{tuple(places)}, "
            f"or probabilities, {logits.dtype}{logits.shape}"
        )
    checks.known_classes(given, classes)  # label itself may be traced, where given is not
    label = checks.class_numbers(label, classes)
    return jnp.where(label >= 0, optax.softmax_cross_entropy_with_integer_labels(logits, label), jnp.nan)


def correct(logits: Float[Array, "*rows k"], label: Int[Array, "*rows"]) -> Bool[Array, "*rows"]:
    """Whether the largest logit is the true class: the mean of it is the accuracy. NaN is never right.

    >>> correct(jnp.array([[0., 1.], [2., 1.]]), jnp.array([1, 1]))
    Array([ True, False], dtype=bool)
    """
    said, true = jnp.argmax(logits, axis=-1).astype(jnp.int32), checks.class_numbers(label, logits.shape[-1])
    return (said == true) & ~jnp.isnan(logits).any(axis=-1)
