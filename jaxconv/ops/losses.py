"""Loss and accuracy of classification."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


@named_errors
def softmax_cross_entropy(
    logits: Float[Array, "n *spatial k"], labels: Integer[Array, "n *spatial"] | Float[Array, "n *spatial k"]
) -> Float[Array, "n *spatial"]:
    """Softmax cross-entropy of each example: ``loss[n] = log Σ_j exp(logits[n, j]) − logits[n, label[n]]``.

    Computed from logits, not from probabilities, so it stays finite for confident predictions (as in optax).

    Args:
        logits: outputs before softmax, ``(N, classes)``, or one vector per pixel, ``(N, H, W, classes)``.
        labels: class indices of any integer dtype, or probabilities of the shape of the logits (one-hot or smoothed).

    Returns:
        One loss per vector of logits.

    Raises:
        InputError: if the shape of the labels does not match, or a class index is not in ``0 … k − 1``. Under ``jit``
            the values are unknown, so an invalid index gives a loss of NaN and no gradient.

    Lecture rows 001-19, 004-21.

    >>> softmax_cross_entropy(jnp.array([[0., 0.], [-200., 200.]]), jnp.array([0, 1]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    import optax  # slow to import, and needed by this op alone

    labels_given = labels
    logits, labels = checks.as_arrays(logits=logits, labels=labels)
    checks.floating_dtype(logits=logits)
    if logits.ndim < 2:
        raise InputError(f"logits {logits.shape} should be (N, classes), or (N, …, classes)")
    if jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, labels)
    *batch_shape, num_classes = logits.shape
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != tuple(batch_shape):
        raise InputError(
            f"labels {labels.dtype}{labels.shape} must be class indices, int{tuple(batch_shape)}, "
            f"or probabilities, {logits.dtype}{logits.shape}"
        )
    checks.known_classes(labels_given, num_classes)  # as_arrays may trace labels whose given values are concrete
    labels = checks.class_numbers(labels, num_classes)
    return jnp.where(labels >= 0, optax.softmax_cross_entropy_with_integer_labels(logits, labels), jnp.nan)


def is_correct(logits: Float[Array, "*batch k"], labels: Integer[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Return True where the largest logit is that of the label; the mean is the accuracy. NaN logits give False.

    >>> is_correct(jnp.array([[0., 1.], [2., 1.]]), jnp.array([1, 1]))
    Array([ True, False], dtype=bool)
    """
    predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    expected = checks.class_numbers(labels, logits.shape[-1])
    return (predicted == expected) & ~jnp.isnan(logits).any(axis=-1)
