"""Gradients of dense layers, activations and the loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from jaxconv import checks
from jaxconv.errors import named_errors
from jaxconv.ops import numerics
from jaxconv.ops.linear import dense as forward_dense
from jaxconv.ops.linear import flatten as forward_flatten
from jaxconv.ops.losses import softmax_cross_entropy as forward_loss


@named_errors(name="backward.dense")
def dense(
    x: Float[Array, "n i"], kernel: Float[Array, "i o"], dy: Float[Array, "n o"]
) -> tuple[Float[Array, "n i"], Float[Array, "i o"], Float[Array, " o"]]:
    """Gradients of ``y = x·kernel + bias``: ``dx = dy·kernelᵀ``, ``d_kernel = xᵀ·dy``, ``d_bias = Σ_n dy``.

    Raises:
        InputError: if dy does not have the shape of y, or :func:`jaxconv.ops.dense` raises it.

    >>> dx, d_kernel, d_bias = dense(jnp.array([[1., 2.]]), jnp.array([[3.], [4.]]), jnp.array([[10.]]))
    >>> dx, d_kernel[:, 0]
    (Array([[30., 40.]], dtype=float32), Array([10., 20.], dtype=float32))
    """
    x, kernel, dy = checks.as_arrays(x=x, kernel=kernel, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_dense, x, kernel))
    x_upcast, kernel_upcast, dy_upcast = map(numerics.upcast, (x, kernel, dy))
    dx = jnp.matmul(dy_upcast, kernel_upcast.T, precision="highest")
    d_kernel = jnp.matmul(x_upcast.T, dy_upcast, precision="highest")
    return dx.astype(x.dtype), d_kernel.astype(x.dtype), dy_upcast.sum(axis=0).astype(x.dtype)


@named_errors(name="backward.flatten")
def flatten(x: Shaped[Array, "n *rest"], dy: Shaped[Array, "n i"]) -> Shaped[Array, "n *rest"]:
    """Reshape dy to the shape of x: flatten does not change values.

    >>> flatten(jnp.ones((1, 2, 2, 1)), jnp.arange(4.)[None]).shape
    (1, 2, 2, 1)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_flatten, x))
    return dy.reshape(x.shape)


@named_errors(name="backward.relu")
def relu(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Pass dy where x is positive: ``dx = dy · [x > 0]``, so 0 at the kink. Lecture row 004-09.

    >>> relu(jnp.array([-1., 0., 2.]), jnp.array([5., 5., 5.]))
    Array([0., 0., 5.], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    return jnp.where(x > 0, dy, jnp.zeros((), dy.dtype))


@named_errors(name="backward.tanh")
def tanh(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``dx = dy · (1 − tanh²(x))``. The slope is computed as ``1 / cosh²(x)``, which is accurate for large x.

    >>> tanh(jnp.array([0., 3.]), jnp.array([1., 1.])).round(3)
    Array([1.  , 0.01], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    return (numerics.upcast(dy) / jnp.cosh(numerics.upcast(x)) ** 2).astype(x.dtype)


@named_errors(name="backward.sigmoid")
def sigmoid(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``dx = dy · σ(x) · (1 − σ(x))``. ``1 − σ(x)`` is computed as ``σ(−x)``, which is accurate for large x.

    >>> sigmoid(jnp.array([0., 30.]), jnp.array([1., 1.]))
    Array([2.500e-01, 9.358e-14], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    x_upcast = numerics.upcast(x)
    return (numerics.upcast(dy) * (jax.nn.sigmoid(x_upcast) * jax.nn.sigmoid(-x_upcast))).astype(x.dtype)


@named_errors(name="backward.softmax_cross_entropy")
def softmax_cross_entropy(
    logits: Float[Array, "n *spatial k"],
    labels: Integer[Array, "n *spatial"] | Float[Array, "n *spatial k"],
    dy: Float[Array, "n *spatial"],
) -> Float[Array, "n *spatial k"]:
    """Predicted minus true probabilities: ``d_logits[n, j] = dy[n] · (softmax(logits)[n, j] − label[n, j])``.

    Args:
        logits, labels: inputs of the op; class indices are treated as one-hot vectors.
        dy: gradient with respect to the loss of each example, ``1 / N`` for a mean loss.

    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), jnp.array([1.]))
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)
    """
    labels_given = labels
    logits, labels, dy = checks.as_arrays(logits=logits, labels=labels, dy=dy)
    y = jax.eval_shape(lambda: forward_loss(logits, labels_given))
    checks.cotangent(dy, y)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        num_classes = logits.shape[-1]
        target = jax.nn.one_hot(checks.class_numbers(labels, num_classes), num_classes, dtype=logits.dtype)
    else:
        target = labels
    predicted = jax.nn.softmax(logits)
    # If the target probabilities do not sum to 1, the predicted ones are multiplied by their sum.
    return dy[..., None] * (predicted * target.sum(axis=-1, keepdims=True) - target)
