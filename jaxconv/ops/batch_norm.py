"""Batch normalisation: each channel less its mean over the batch, by its deviation.

The statistics of a batch and their use are two functions, so that nothing depends on a hidden mode. Both are computed
in at least float32, the statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean
is large.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxconv.errors import InputError
from jaxconv.ops import checks
from jaxconv.ops.norm import batched, normalize, row, several
from jaxconv.ops.places import spread, total


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
    x = batched("batch_norm", x)
    for name, array in {"mean": mean, "var": var}.items():
        if array is not None:
            checks.vector("batch_norm", name, array, x.shape[-1])
    if (mean is None) != (var is None):
        raise InputError("batch_norm: give both mean and var, or neither")
    if mean is not None and mask is not None:
        raise InputError("batch_norm: mask means nothing where mean and var are given: leave it out")
    wide, counted = _counted("batch_norm", checks.widened(x), mask)
    if mean is None or var is None:
        checks.number("batch_norm", "eps", eps, least=0)
        for name, array in {"scale": scale, "bias": bias}.items():
            checks.vector("batch_norm", name, array, x.shape[-1])
        scale, bias = (jnp.asarray(array).astype(wide.dtype) for array in (scale, bias))
        return _by_its_own(float(eps), wide, scale, bias, counted).astype(x.dtype)
    return normalize("batch_norm", wide, row(mean, x), row(var, x), scale, bias, eps).astype(x.dtype)


def batch_statistics(
    x: Float[Array, "n *spatial c"], mask: Bool[Array, " n"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the batch and every pixel, in at least float32.

        mean[c] = mean of x[n, p, c],   var[c] = mean of (x[n, p, c] − mean[c])²

    Args:
        x: ``(N, *spatial, C)``.
        mask: True for the examples that count. A short batch is padded to the common size and its padding masked,
            and then has the statistics that it would have alone.

    Raises:
        InputError: a single value a channel, which is its own mean; a mask that is not one bool an example, or that is
            False for all of them.
        DtypeError: x holds integers.

    >>> mean, var = batch_statistics(jnp.array([[1.], [3.], [99.]]), mask=jnp.array([True, True, False]))
    >>> float(mean[0]), float(var[0])
    (2.0, 1.0)
    """
    x = batched("batch_statistics", x)
    return _batch_statistics("batch_statistics", *_counted("batch_statistics", checks.widened(x), mask))


def _counted(op: str, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """x without what does not count, for a NaN there would reach the gradient (0 · NaN is NaN); and where it counts."""
    if mask is None:
        return x, None
    array = checks.array(op, "mask", mask)
    if array.shape != x.shape[:1] or array.dtype != bool:
        raise InputError(f"{op}: mask {array.dtype}{array.shape} should be bool({x.shape[0]},), one entry an example")
    if not isinstance(mask, jax.core.Tracer) and not np.any(mask):
        raise InputError(f"{op}: mask is False for every example, so there is nothing to take a mean over")
    return jnp.where(array.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), array


def _batch_statistics(op: str, x: jax.Array, counted: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    several(op, x, math.prod(x.shape[:-1]), "value")
    mean = _mean(x, counted)
    return mean, _mean(jnp.square(x - spread(mean, x)), counted)


def _mean(x: jax.Array, counted: jax.Array | None) -> jax.Array:
    """The mean of each channel over every pixel of the examples that count."""
    examples = x.shape[0] if counted is None else counted.sum(dtype=x.dtype)
    return total(x, counted) / (examples * math.prod(x.shape[1:-1]))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_its_own(eps: float, x: jax.Array, scale: jax.Array, bias: jax.Array, counted: jax.Array | None) -> jax.Array:
    """x normalised with its own statistics."""
    return _scaled(_normal(eps, x, counted)[0], scale, bias)


@_by_its_own.defjvp
def _by_its_own_jvp(eps: float, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    """With x̂ = (x − mean) / deviation, and since mean and deviation move with x:

        dy = slope · dx + x̂ · (dscale − slope · mean(x̂ · dx)) + (dbias − slope · mean(dx)),   slope = scale / deviation

    Written so, its transpose takes two sums over the batch, those that scale and bias need anyway. The chain rule
    through mean, variance and root takes twice as many.
    """
    x, scale, bias, counted = primals
    dx, d_scale, d_bias, _ = tangents
    normal, factor = _normal(eps, x, counted)
    slope = scale * factor
    d_scale = d_scale - slope * _mean(normal * dx, counted)
    d_bias = d_bias - slope * _mean(dx, counted)
    return _scaled(normal, scale, bias), spread(slope, x) * dx + _scaled(normal, d_scale, d_bias)


def _normal(eps: float, x: jax.Array, counted: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """x with mean 0 and deviation 1, and the factor that made it so."""
    mean, var = _batch_statistics("batch_norm", x, counted)
    factor = jax.lax.rsqrt(var + jnp.asarray(eps, x.dtype))
    return (x - spread(mean, x)) * spread(factor, x), factor


def _scaled(normal: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return normal * spread(scale, normal) + spread(bias, normal)
