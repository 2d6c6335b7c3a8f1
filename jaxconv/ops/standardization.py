"""Standardization to mean 0 and standard deviation 1, the first step of every norm, for inputs of any magnitude.

    x̂ = (x − mean) · factor,   factor = 1 / √(var + eps)

float32 represents numbers up to 3e38, but their squares only below 1.8e19: above, the variance overflows and x̂ is 0;
far below 1 the variance underflows. Also, the rounded mean of equal numbers differs from that number, so ``x − mean``
is rounding noise as large as its own deviation. Where the two-pass variance is unreliable for these reasons, x is first
shifted by one of its values, which maps a constant to exact zeros, and scaled by a power of two, which is exact. This
is accurate for deviations up to 8e37, whose reciprocal is a float32. On a CPU the correction is a branch of two more
passes, which is rarely taken. A GPU or TPU would have to wait for the condition, but computes several sums in one pass
over x, so there the correction is always computed.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.numerics import broadcast_per_channel, sum_per_channel

Axes = tuple[int, ...] | None  # None: all axes but the last, by the fast sums of jaxconv.ops.numerics
MIN_RELATIVE_DEVIATION = 2.0**-9  # below this ratio of deviation to mean, rounding of the mean costs digits


class Moments(NamedTuple):
    """The terms of ``x̂ = (x − shift − mean) · factor``, and the variance.

    Shapes are ``(C,)``, or those of x with size 1 along the averaged axes.
    """

    shift: jax.Array
    mean: jax.Array
    var: jax.Array
    factor: jax.Array


class Standardized(NamedTuple):
    """x̂, and its statistics of shape ``(C,)``, or of the shape of x with size 1 along the averaged axes."""

    x_hat: jax.Array
    factor: jax.Array
    mean: jax.Array
    var: jax.Array  # infinite on overflow of the dtype


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def standardize(
    x: jax.Array, eps: jax.Array, valid_mask: jax.Array | None = None, axes: Axes = None, centered: bool = True
) -> Standardized:
    """Compute x̂, its factor, and the statistics. Where variance and eps are both 0, x̂ and factor are 0.

    Args:
        x: ``(N, …, C)``, in the dtype of sums.
        eps: scalar of x's dtype.
        valid_mask: mask of the examples that enter the statistics, ``(N,)`` bool; requires ``axes=None``.
        axes: axes to average over; None for all but the last, with the fast sums of :mod:`jaxconv.ops.numerics`.
        centered: subtract the mean; False uses the mean square for the variance (as in RMS norm).
    """
    shift, mean, var, factor = _moments(x, eps, valid_mask, axes, centered)
    x_hat = x - _expand_per_channel(shift, x) - _expand_per_channel(mean, x) if centered else x
    return Standardized(x_hat * _expand_per_channel(factor, x), factor, shift + mean, var)


@standardize.defjvp
def _standardize_jvp(axes: Axes, centered: bool, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Differentiate through mean and factor, which depend on x:

        dx̂ = factor · (dx − mean(dx) − x̂ · mean(x̂ · dx)) − x̂ · ½ factor² · d_eps
        d_factor = −factor · (factor · mean(x̂ · dx) + ½ factor² · d_eps)
        d_mean = mean(dx),   d_var = 2 · mean(x̂ · dx) / factor

    The plain chain rule would compute the third power of the factor, which overflows early.
    """
    x, eps, valid_mask = primals
    dx, d_eps, _ = tangents
    y = standardize(x, eps, valid_mask, axes, centered)
    mean_x_hat_dx = _masked_mean(y.x_hat * dx, axes, valid_mask)
    d_mean = _masked_mean(dx, axes, valid_mask) if centered else jnp.zeros_like(mean_x_hat_dx)
    eps_term = y.factor * (y.factor * d_eps) / 2
    d_centered = dx - y.x_hat * _broadcast_per_channel(mean_x_hat_dx, x)
    if centered:
        d_centered = d_centered - _broadcast_per_channel(d_mean, x)
    d_x_hat = _broadcast_per_channel(y.factor, x) * d_centered - y.x_hat * _broadcast_per_channel(eps_term, x)
    d_factor = -y.factor * (y.factor * mean_x_hat_dx + eps_term)
    return y, Standardized(d_x_hat, d_factor, d_mean, d_variance(mean_x_hat_dx, y.factor))


def d_variance(mean_x_hat_dx: jax.Array, factor: jax.Array) -> jax.Array:
    """Directional derivative of the variance along dx, from ``mean(x̂ · dx)``."""
    return 2 * mean_x_hat_dx / jnp.where(factor == 0, 1, factor)


def _moments(x: jax.Array, eps: jax.Array, valid_mask: jax.Array | None, axes: Axes, centered: bool) -> Moments:
    # Deviations between 1 / max_squarable and max_squarable can be squared; others are scaled into that range. For
    # float32, which ends at 2^128, max_squarable is 2^32 and the scales are 2^-80 and 2^80.
    max_exponent = jnp.finfo(x.dtype).maxexp
    max_squarable, scale_down, scale_up = (2.0 ** (max_exponent * eighths // 8) for eighths in (2, -5, 5))

    def mean_over_axes(x: jax.Array) -> jax.Array:
        return _masked_mean(x, axes, valid_mask)

    def scale_of(var: jax.Array, shift: jax.Array) -> jax.Array:
        """Return 1 where squares are safe, and for large values with a tiny variance, which are all equal."""
        small = (var + eps < max_squarable**-2) & (jnp.abs(shift) < max_squarable)
        return jnp.where(var < max_squarable**2, jnp.where(small, scale_up, 1), scale_down).astype(x.dtype)

    def moments(x: jax.Array, shift: jax.Array, scale: jax.Array) -> Moments:
        shifted = x * _expand_per_channel(scale, x) - _expand_per_channel(shift * scale, x)
        mean = mean_over_axes(shifted) if centered else jnp.zeros_like(shift)
        var = mean_over_axes(jnp.square(shifted - _expand_per_channel(mean, x)))
        inverse = 1 / scale
        return Moments(shift, mean * inverse, var * inverse * inverse, _factor(var, eps * scale * scale) * scale)

    def with_branch(x: jax.Array, eps: jax.Array, valid_mask: jax.Array | None) -> Moments:
        mean = mean_over_axes(x) if centered else None
        var = mean_over_axes(jnp.square(x if mean is None else x - _expand_per_channel(mean, x)))
        unreliable = ~(var < max_squarable**2) | (var + eps < max_squarable**-2)
        if mean is not None:
            unreliable |= (var <= jnp.square(MIN_RELATIVE_DEVIATION * mean)) & (mean != 0)
        shift = jnp.where(unreliable, _reference_value(x, valid_mask, axes) if centered else 0, jnp.zeros_like(var))
        direct = Moments(shift, shift if mean is None else mean, var, _factor(var, eps))

        def corrected() -> Moments:
            return jax.tree.map(
                functools.partial(jnp.where, unreliable), moments(x, shift, scale_of(var, shift)), direct
            )

        return lax.cond(_any(unreliable), corrected, lambda: direct)

    def without_branch(x: jax.Array, eps: jax.Array, valid_mask: jax.Array | None) -> Moments:
        reference = _reference_value(x, valid_mask, axes)
        shift = reference if centered else jnp.zeros_like(reference)
        # Without the barrier XLA would multiply by the squares of these constants, which overflow the dtype.
        scales = (lax.optimization_barrier(jnp.full_like(shift, scale)) for scale in (1, scale_down, scale_up))
        direct, scaled_down, scaled_up = (moments(x, shift, scale) for scale in scales)
        scale = scale_of(direct.var, shift)
        return jax.tree.map(
            lambda down, up, same: jnp.select([scale < 1, scale > 1], [down, up], same), scaled_down, scaled_up, direct
        )

    return lax.platform_dependent(x, eps, valid_mask, cpu=with_branch, default=without_branch)


def _factor(var: jax.Array, eps: jax.Array) -> jax.Array:
    """Compute ``1 / √(var + eps)``, and 0 where both are 0."""
    return jnp.where(var + eps == 0, 0, lax.rsqrt(var + eps))


def _reference_value(x: jax.Array, valid_mask: jax.Array | None, axes: Axes) -> jax.Array:
    """One of the averaged values, for each mean."""
    if axes is not None:
        return x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    pixel = x.reshape(x.shape[0], -1, x.shape[-1])[:, 0]
    if valid_mask is not None:
        pixel = jnp.where(valid_mask[:, None], pixel, -jnp.inf)
    return pixel.max(axis=0)  # not the first: on a sharded batch that would be a gather


@jax.custom_batching.custom_vmap
def _any(unreliable: jax.Array) -> jax.Array:
    return unreliable.any()


@_any.def_vmap
def _any_batched(size: int, batched: list[bool], unreliable: jax.Array) -> tuple[jax.Array, bool]:
    """Reduce over the vmapped axis too: a batched condition would compute both branches of `cond`."""
    return _any(unreliable), False


def _masked_mean(x: jax.Array, axes: Axes, valid_mask: jax.Array | None) -> jax.Array:
    return channel_mean(x, valid_mask) if axes is None else jnp.mean(x, axis=axes, keepdims=True)


def channel_mean(x: jax.Array, valid_mask: jax.Array | None) -> jax.Array:
    """Mean of each channel over all pixels of the valid examples."""
    num_examples = x.shape[0] if valid_mask is None else valid_mask.sum(dtype=x.dtype)
    return sum_per_channel(x, valid_mask) / (num_examples * math.prod(x.shape[1:-1]))


def _expand_per_channel(statistic: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape ``(C,)`` to broadcast against x; other shapes are returned unchanged."""
    return statistic.reshape((1,) * (x.ndim - 1) + (-1,)) if statistic.ndim == 1 else statistic


def _broadcast_per_channel(statistic: jax.Array, x: jax.Array) -> jax.Array:
    """Broadcast ``(C,)`` to the shape of x with a fast transpose; other shapes are returned unchanged."""
    return broadcast_per_channel(statistic, x) if statistic.ndim == 1 else statistic
