"""Batch normalisation: each channel less its mean over the batch, by its deviation.

The statistics of a batch and their use are two functions, so that nothing depends on a hidden mode. Both are computed
in at least float32, the statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean
is large.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.ops.normalization import batched, row, several
from jaxconv.ops.places import spread
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.standardization import channel_mean, d_variance, standardize

Normalised = tuple[jax.Array, jax.Array, jax.Array]  # the output, mean and variance


def batch_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"] | None = None,
    var: Float[Array, " c"] | None = None,
    *,
    mask: Bool[Array, " n"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Shift and scale each channel to mean ``bias`` and deviation ``scale``.

        y = (x − mean) / √(var + eps) · scale + bias

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned, one a channel.
        mean, var: the statistics to normalise with. Left out, they are this batch's own (as in training); for
            inference give the running ones, of which :class:`jaxconv.layers.BatchNorm` keeps account.
        mask: True for the examples that count in the batch's own statistics, as in :func:`batch_statistics`; the
            others come out as if they had been 0.
        eps: keeps a constant channel finite.

    Raises:
        InputError: mean without var, a mask with both, a single value a channel where the statistics are to be its
            own, a scale, bias, mean or var of another size.
        DtypeError: x holds integers.

    Source: Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    >>> x = jnp.array([[1.], [3.]])
    >>> batch_norm(x, scale=jnp.ones(1), bias=jnp.zeros(1))[:, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    if (mean is None) != (var is None):
        raise InputError("batch_norm: give both mean and var, or neither")
    if mean is None or var is None:
        return batch_norm_with_statistics(x, scale, bias, mask=mask, eps=eps)[0]
    x = batched("batch_norm", x)
    if mask is not None:
        raise InputError("batch_norm: mask means nothing where mean and var are given: leave it out")
    vectors = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    wide, small, (scale, bias, mean, var) = _widened(x, eps, vectors)
    return ((wide - row(mean, x)) * row(lax.rsqrt(var + small) * scale, x) + row(bias, x)).astype(x.dtype)


def batch_norm_with_statistics(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, mask: jax.Array | None, eps: Any
) -> Normalised:
    """:func:`batch_norm` by the batch's own statistics, and these: what :class:`jaxconv.layers.BatchNorm` needs."""
    x = batched("batch_norm", x)
    several("batch_norm", x, math.prod(x.shape[:-1]), "value")
    wide, small, (scale, bias) = _widened(x, eps, {"scale": scale, "bias": bias})
    wide, counted = _counted("batch_norm", wide, mask)
    marks = () if counted is None else (counted,)
    y, mean, var = over_devices(_by_its_own, wide, small, scale, bias, *marks, vectors=2)
    return y.astype(x.dtype), mean, var


def _widened(x: jax.Array, eps: Any, vectors: dict[str, Any]) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Everything in the dtype to compute in."""
    for name, array in vectors.items():
        checks.vector("batch_norm", name, array, x.shape[-1])
    wide = checks.widened(x)
    small = checks.constant("batch_norm", "eps", eps, wide.dtype)
    return wide, small, [jnp.asarray(array).astype(wide.dtype) for array in vectors.values()]


def batch_statistics(
    x: Float[Array, "n *spatial c"], mask: Bool[Array, " n"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the batch and every pixel, in at least float32.

        mean[c] = mean of x[n, p, c],   var[c] = mean of (x[n, p, c] − mean[c])²

    Args:
        x: ``(N, *spatial, C)``.
        mask: True for the examples that count. A short batch is padded to the common size and its padding masked,
            and then has the statistics that it would have alone.

    Returns:
        One number a channel in each. A variance beyond the dtype, of numbers beyond 1e19 in float32, is infinite.

    Raises:
        InputError: a single value a channel, which is its own mean; a mask that is not one bool an example, or that is
            False for all of them.
        DtypeError: x holds integers.

    >>> mean, var = batch_statistics(jnp.array([[1.], [3.], [99.]]), mask=jnp.array([True, True, False]))
    >>> float(mean[0]), float(var[0])
    (2.0, 1.0)
    """
    x = batched("batch_statistics", x)
    several("batch_statistics", x, math.prod(x.shape[:-1]), "value")
    wide, counted = _counted("batch_statistics", checks.widened(x), mask)
    y = standardize(wide, jnp.ones((), wide.dtype), counted)
    return y.mean, y.var


def _counted(op: str, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """x without what does not count, for a NaN there would reach the gradient (0 · NaN is NaN); and where it counts."""
    if mask is None:
        return x, None
    array = checks.array(op, "mask", mask)
    if array.shape != x.shape[:1] or array.dtype != bool:
        raise InputError(f"{op}: mask {array.dtype}{array.shape} should be bool({x.shape[0]},), one entry an example")
    if not isinstance(mask, jax.core.Tracer) and not np.asarray(mask).any():
        raise InputError(f"{op}: mask is False for every example, so there is nothing to take a mean over")
    return jnp.where(array.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), array


@jax.custom_jvp
def _by_its_own(
    x: jax.Array, eps: jax.Array, scale: jax.Array, bias: jax.Array, counted: jax.Array | None = None
) -> Normalised:
    """x normalised with its own statistics, and these."""
    y = standardize(x, eps, counted)
    return _scaled(y.normal, scale, bias), y.mean, y.var


@_by_its_own.defjvp
def _by_its_own_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Normalised, Normalised]:
    """With x̂ = (x − mean) · factor, and since mean and factor move with x and eps:

        dy = slope · dx + x̂ · (dscale − slope · mean(x̂ · dx) − scale · ½ factor² · d_eps) + (dbias − slope · mean(dx))

    with ``slope = scale · factor``. Written so, its transpose takes two sums over the batch, those that scale and bias
    need anyway. The chain rule through mean, variance and root takes twice as many. The statistics move as for
    :func:`jaxconv.ops.standardization.standardize`.
    """
    x, eps, scale, bias, counted = primals
    dx, d_eps, d_scale, d_bias, _ = tangents
    y = standardize(x, eps, counted)
    slope, d_mean, along = scale * y.factor, channel_mean(dx, counted), channel_mean(y.normal * dx, counted)
    d_scale = d_scale - slope * along - slope * (y.factor * d_eps) / 2
    d_bias = d_bias - slope * d_mean
    d_y = spread(slope, x) * dx + _scaled(y.normal, d_scale, d_bias)
    return (_scaled(y.normal, scale, bias), y.mean, y.var), (d_y, d_mean, d_variance(along, y.factor))


def _scaled(normal: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return normal * spread(scale, normal) + spread(bias, normal)
