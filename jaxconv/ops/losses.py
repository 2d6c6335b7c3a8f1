"""What training makes small."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


@named_errors
def softmax_cross_entropy(
    logits: Float[Array, "n *places k"], labels: Int[Array, "n *places"] | Float[Array, "n *places k"]
) -> Float[Array, "n *places"]:
    """How surprised the network is by the true class: ``loss[n] = log Σ_j exp(logits[n, j]) − logits[n, label[n]]``.

    From logits, not probabilities, so it is finite however sure the network is (optax's).

    Args:
        logits: the outputs before softmax, ``(N, classes)``, or of every pixel, ``(N, H, W, classes)``.
        labels: class numbers, integers of any size, or one row of probabilities for each (one-hot, or smoothed).

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

    given = labels
    logits, labels = checks.as_arrays(logits=logits, labels=labels)
    checks.floating_dtype(logits=logits)
    if logits.ndim < 2:
        raise InputError(f"logits {logits.shape} should be (N, classes), or (N, …, classes)")
    if jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, labels)
    *places, classes = logits.shape
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != tuple(places):
        raise InputError(
            f"label {labels.dtype}{labels.shape} should be class numbers, int{tuple(places)}, "
            f"or probabilities, {logits.dtype}{logits.shape}"
        )
    checks.known_classes(given, classes)  # label itself may be traced, where given is not
    labels = checks.class_numbers(labels, classes)
    return jnp.where(labels >= 0, optax.softmax_cross_entropy_with_integer_labels(logits, labels), jnp.nan)


def is_correct(logits: Float[Array, "*rows k"], labels: Int[Array, "*rows"]) -> Bool[Array, "*rows"]:
    """Whether the largest logit is the true class: the mean of it is the accuracy. NaN is never right.

    >>> is_correct(jnp.array([[0., 1.], [2., 1.]]), jnp.array([1, 1]))
    Array([ True, False], dtype=bool)
    """
    said, true = jnp.argmax(logits, axis=-1).astype(jnp.int32), checks.class_numbers(labels, logits.shape[-1])
    return (said == true) & ~jnp.isnan(logits).any(axis=-1)
