"""Normalisation. The statistics and their use are two functions, so that nothing depends on a hidden mode."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxconv.errors import InputError
from jaxconv.ops import checks


def batch_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"] | None = None,
    var: Float[Array, " c"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Shift and scale each channel to mean ``bias`` and deviation ``scale``.

        y = (x − mean) / √(var + eps) · scale + bias

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned, one a channel.
        mean, var: the statistics to normalise with. Left out, they are this batch's own (as in training); for
            inference give the running ones, of which :class:`jaxconv.layers.BatchNorm` keeps account.
        eps: keeps a constant channel finite.

    Source: Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    >>> x = jnp.array([[1.], [3.]])
    >>> batch_norm(x, scale=jnp.ones(1), bias=jnp.zeros(1))[:, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    x = jnp.asarray(x)
    checks.floating("batch_norm", x=x)
    for name, array in {"scale": scale, "bias": bias, "mean": mean, "var": var}.items():
        if array is not None:
            checks.vector("batch_norm", name, array, x.shape[-1])
    if (mean is None) != (var is None):
        raise InputError("batch_norm: give both mean and var, or neither")
    if mean is None or var is None:
        mean, var = batch_statistics(x)
    # In at least float32, where the statistics are; a bfloat16 x comes back as bfloat16.
    row = (1,) * (x.ndim - 1) + (-1,)
    factor = jax.lax.rsqrt(var + jnp.asarray(eps, var.dtype)) * scale.astype(var.dtype)
    y = (x.astype(var.dtype) - mean.reshape(row)) * factor.reshape(row) + bias.astype(var.dtype).reshape(row)
    return y.astype(x.dtype)


def batch_statistics(
    x: Float[Array, "n *spatial c"], mask: Bool[Array, " n"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the batch and every pixel, in at least float32.

        mean[c] = mean of x[n, p, c],   var[c] = mean of (x[n, p, c] − mean[c])²

    In two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean is large.

    Args:
        x: ``(N, *spatial, C)``.
        mask: True for the examples that count. A short batch is padded to the common size and its padding masked,
            and then has the statistics that it would have alone.

    >>> mean, var = batch_statistics(jnp.array([[1.], [3.], [99.]]), mask=jnp.array([True, True, False]))
    >>> float(mean[0]), float(var[0])
    (2.0, 1.0)
    """
    x = jnp.asarray(x)
    checks.floating("batch_statistics", x=x)
    x = x.astype(checks.accumulator(x))
    if mask is not None and mask.shape != x.shape[:1]:
        raise InputError(f"batch_statistics: mask {mask.shape} should be ({len(x)},), one entry an example")
    axes = tuple(range(x.ndim - 1))
    where = None if mask is None else mask.reshape((-1,) + (1,) * (x.ndim - 1))
    mean = jnp.mean(x, axis=axes, where=where)
    row = (1,) * (x.ndim - 1) + (-1,)
    return mean, jnp.mean(jnp.square(x - mean.reshape(row)), axis=axes, where=where)
