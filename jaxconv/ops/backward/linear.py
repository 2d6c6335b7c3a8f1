"""Back through the rest of a network: dense layers, activations, and the loss where it all begins."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

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
    """The gradients of ``y = x·kernel + bias``: ``dx = dy·kernelᵀ``, ``d_kernel = xᵀ·dy``, ``d_bias = Σ_n dy``.

    Raises:
        InputError: dy has not the shape of y, or what :func:`jaxconv.ops.dense` raises.

    >>> dx, d_kernel, d_bias = dense(jnp.array([[1., 2.]]), jnp.array([[3.], [4.]]), jnp.array([[10.]]))
    >>> dx, d_kernel[:, 0]
    (Array([[30., 40.]], dtype=float32), Array([10., 20.], dtype=float32))
    """
    x, kernel, dy = checks.as_arrays(x=x, kernel=kernel, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_dense, x, kernel))
    wide, wide_kernel, wide_dy = map(numerics.upcast, (x, kernel, dy))
    dx = jnp.matmul(wide_dy, wide_kernel.T, precision="highest")
    d_kernel = jnp.matmul(wide.T, wide_dy, precision="highest")
    return dx.astype(x.dtype), d_kernel.astype(x.dtype), wide_dy.sum(axis=0).astype(x.dtype)


@named_errors(name="backward.flatten")
def flatten(x: Shaped[Array, "n *rest"], dy: Shaped[Array, "n i"]) -> Shaped[Array, "n *rest"]:
    """The numbers did not change, only their arrangement: ``dx = dy`` in the shape of x.

    >>> flatten(jnp.ones((1, 2, 2, 1)), jnp.arange(4.)[None]).shape
    (1, 2, 2, 1)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_flatten, x))
    return dy.reshape(x.shape)


@named_errors(name="backward.relu")
def relu(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Passes where x was positive: ``dx = dy · [x > 0]``, so 0 at the kink. Lecture row 004-09.

    >>> relu(jnp.array([-1., 0., 2.]), jnp.array([5., 5., 5.]))
    Array([0., 0., 5.], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    return jnp.where(x > 0, dy, jnp.zeros((), dy.dtype))


@named_errors(name="backward.tanh")
def tanh(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``dx = dy · (1 − tanh²(x))``: at most 1, and nearly 0 where saturated. ``1 / cosh²(x)`` keeps its digits.

    >>> tanh(jnp.array([0., 3.]), jnp.array([1., 1.])).round(3)
    Array([1.  , 0.01], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    return (numerics.upcast(dy) / jnp.cosh(numerics.upcast(x)) ** 2).astype(x.dtype)


@named_errors(name="backward.sigmoid")
def sigmoid(x: Float[Array, "*shape"], dy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``dx = dy · σ(x) · (1 − σ(x))``: at most a quarter. ``1 − σ(x)`` is ``σ(−x)``, which keeps its digits.

    >>> sigmoid(jnp.array([0., 30.]), jnp.array([1., 1.]))
    Array([2.500e-01, 9.358e-14], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, x)
    wide = numerics.upcast(x)
    return (numerics.upcast(dy) * (jax.nn.sigmoid(wide) * jax.nn.sigmoid(-wide))).astype(x.dtype)


@named_errors(name="backward.softmax_cross_entropy")
def softmax_cross_entropy(
    logits: Float[Array, "n *places k"],
    labels: Int[Array, "n *places"] | Float[Array, "n *places k"],
    dy: Float[Array, "n *places"],
) -> Float[Array, "n *places k"]:
    """What was said minus what was true: ``d_logits[n, j] = dy[n] · (softmax(logits)[n, j] − label[n, j])``.

    Args:
        logits, labels: what went in; class numbers stand for rows with a single one.
        dy: the gradient by each example's loss: ``1 / N`` each for their mean.

    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), jnp.array([1.]))
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)
    """
    given = labels
    logits, labels, dy = checks.as_arrays(logits=logits, labels=labels, dy=dy)
    y = jax.eval_shape(lambda: forward_loss(logits, given))
    checks.cotangent(dy, y)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        classes = logits.shape[-1]
        true = jax.nn.one_hot(checks.class_numbers(labels, classes), classes, dtype=logits.dtype)
    else:
        true = labels
    said = jax.nn.softmax(logits)
    # Probabilities that do not add up to 1 weigh what was said by what they do add up to.
    return dy[..., None] * (said * true.sum(axis=-1, keepdims=True) - true)
