"""Mean 0 and deviation 1, of numbers of any size: what every norm does first.

    x̂ = (x − mean) · factor,   factor = 1 / √(var + eps)

A float32 has numbers up to 3e38, but squares only of those below 1.8e19: beyond, the variance would be infinite and x̂
zero, and far below 1 it would be 0. And the rounded mean of equal numbers is not that number: ``x − mean`` would be
noise, as large as its own deviation. So where the usual two passes give a variance that cannot be relied upon, x is
first shifted by one of its values, which leaves exact zeros of a constant, and scaled by a power of two, which rounds
nothing. Deviations up to 8e37, whose reciprocal is a float32, are right so. On a CPU it takes two more passes and is a
branch of the program, which hardly ever runs. On a GPU or TPU, which would wait for such a decision, but reads x once
for several sums, it is done always.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.numerics import spread, total

Axes = tuple[int, ...] | None  # None: each channel over all else, by what is fastest for that
DIGITS = 2.0**-9  # a deviation that is a smaller share of the mean would lose digits to the rounding of the mean


class Moments(NamedTuple):
    """The terms of ``x̂ = (x − shift − mean) · factor``, and the variance.

    Each has an entry a channel, or axes of size 1 where it was averaged.
    """

    shift: jax.Array
    mean: jax.Array
    var: jax.Array
    factor: jax.Array


class Standardized(NamedTuple):
    """x̂, and what it was made with: an entry a channel, or axes of size 1 where it was averaged."""

    normal: jax.Array
    factor: jax.Array
    mean: jax.Array
    var: jax.Array  # infinite beyond the dtype


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def standardize(
    x: jax.Array, eps: jax.Array, counted: jax.Array | None = None, axes: Axes = None, centred: bool = True
) -> Standardized:
    """``x̂``, its factor, and the statistics. Where variance and eps are both 0, x̂ and factor are 0.

    Args:
        x: ``(N, …, C)``, widened.
        eps: a number in x's dtype.
        counted: which of the examples count, ``(N,)`` bool; with axes None.
        axes: what to average over; None: all but the last, which is fastest for that case.
        centred: False leaves the mean in, and has the mean square for the variance.
    """
    shift, mean, var, factor = _moments(x, eps, counted, axes, centred)
    normal = x - _row(shift, x) - _row(mean, x) if centred else x
    return Standardized(normal * _row(factor, x), factor, shift + mean, var)


@standardize.defjvp
def _standardize_jvp(axes: Axes, centred: bool, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Since mean and factor move with x:

        dx̂ = factor · (dx − mean(dx) − x̂ · mean(x̂ · dx)) − x̂ · ½ factor² · d_eps
        d_factor = −factor · (factor · mean(x̂ · dx) + ½ factor² · d_eps)
        d_mean = mean(dx),   d_var = 2 · mean(x̂ · dx) / factor

    The chain rule would take the third power of the factor, which few numbers allow.
    """
    x, eps, counted = primals
    dx, d_eps, _ = tangents
    y = standardize(x, eps, counted, axes, centred)
    along = _mean(y.normal * dx, axes, counted)
    d_mean = _mean(dx, axes, counted) if centred else jnp.zeros_like(along)
    shrunk = y.factor * (y.factor * d_eps) / 2
    moved = dx - y.normal * _spread(along, x)
    if centred:
        moved = moved - _spread(d_mean, x)
    d_normal = _spread(y.factor, x) * moved - y.normal * _spread(shrunk, x)
    d_factor = -y.factor * (y.factor * along + shrunk)
    return y, Standardized(d_normal, d_factor, d_mean, d_variance(along, y.factor))


def d_variance(along: jax.Array, factor: jax.Array) -> jax.Array:
    """The derivative of the variance along dx, from ``along = mean(x̂ · dx)``."""
    return 2 * along / jnp.where(factor == 0, 1, factor)


def _moments(x: jax.Array, eps: jax.Array, counted: jax.Array | None, axes: Axes, centred: bool) -> Moments:
    # Squares are safe of deviations between 1 / reach and reach; a scale brings the others there. In float32, whose
    # numbers end at 2^128, the reach is 2^32 and the scales are 2^-80 and 2^80.
    exponents = jnp.finfo(x.dtype).maxexp
    reach, down, up = (2.0 ** (exponents * eighths // 8) for eighths in (2, -5, 5))

    def mean_of(x: jax.Array) -> jax.Array:
        return _mean(x, axes, counted)

    def scale_of(var: jax.Array, shift: jax.Array) -> jax.Array:
        """1 where squares are safe. Where they are not for large numbers that are close together, all are equal."""
        small = (var + eps < reach**-2) & (jnp.abs(shift) < reach)
        return jnp.where(var < reach**2, jnp.where(small, up, 1), down).astype(x.dtype)

    def moments(x: jax.Array, shift: jax.Array, scale: jax.Array) -> Moments:
        shifted = x * _row(scale, x) - _row(shift * scale, x)
        mean = mean_of(shifted) if centred else jnp.zeros_like(shift)
        var = mean_of(jnp.square(shifted - _row(mean, x)))
        back = 1 / scale
        return Moments(shift, mean * back, var * back * back, _factor(var, eps * scale * scale) * scale)

    def with_branch(x: jax.Array, eps: jax.Array, counted: jax.Array | None) -> Moments:
        mean = mean_of(x) if centred else None
        var = mean_of(jnp.square(x if mean is None else x - _row(mean, x)))
        odd = ~(var < reach**2) | (var + eps < reach**-2)
        if mean is not None:
            odd |= (var <= jnp.square(DIGITS * mean)) & (mean != 0)
        shift = jnp.where(odd, _one_value(x, counted, axes) if centred else 0, jnp.zeros_like(var))
        usual = Moments(shift, shift if mean is None else mean, var, _factor(var, eps))

        def corrected() -> Moments:
            return jax.tree.map(functools.partial(jnp.where, odd), moments(x, shift, scale_of(var, shift)), usual)

        return lax.cond(_anywhere(odd), corrected, lambda: usual)

    def straight(x: jax.Array, eps: jax.Array, counted: jax.Array | None) -> Moments:
        value = _one_value(x, counted, axes)
        shift = value if centred else jnp.zeros_like(value)
        # XLA would multiply by the squares of constants, which are beyond the dtype.
        scales = (lax.optimization_barrier(jnp.full_like(shift, scale)) for scale in (1, down, up))
        usual, less, more = (moments(x, shift, scale) for scale in scales)
        scale = scale_of(usual.var, shift)
        return jax.tree.map(lambda *of: jnp.select([scale < 1, scale > 1], of[:2], of[2]), less, more, usual)

    return lax.platform_dependent(x, eps, counted, cpu=with_branch, default=straight)


def _factor(var: jax.Array, eps: jax.Array) -> jax.Array:
    """``1 / √(var + eps)``; 0 where both are 0."""
    return jnp.where(var + eps == 0, 0, lax.rsqrt(var + eps))


def _one_value(x: jax.Array, counted: jax.Array | None, axes: Axes) -> jax.Array:
    """One of the values that are averaged, for each mean."""
    if axes is not None:
        return x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    pixel = x.reshape(x.shape[0], -1, x.shape[-1])[:, 0]
    if counted is not None:
        pixel = jnp.where(counted[:, None], pixel, -jnp.inf)
    return pixel.max(axis=0)  # and not the first: devices that share the batch would gather it to take that


@jax.custom_batching.custom_vmap
def _anywhere(odd: jax.Array) -> jax.Array:
    return odd.any()


@_anywhere.def_vmap
def _anywhere_of_several(size: int, batched: list[bool], odd: jax.Array) -> tuple[jax.Array, bool]:
    """Decide for all together: under vmap, each for itself would have both branches computed."""
    return _anywhere(odd), False


def _mean(x: jax.Array, axes: Axes, counted: jax.Array | None) -> jax.Array:
    return channel_mean(x, counted) if axes is None else jnp.mean(x, axis=axes, keepdims=True)


def channel_mean(x: jax.Array, counted: jax.Array | None) -> jax.Array:
    """The mean of each channel over every pixel of the examples that count."""
    examples = x.shape[0] if counted is None else counted.sum(dtype=x.dtype)
    return total(x, counted) / (examples * math.prod(x.shape[1:-1]))


def _row(of: jax.Array, x: jax.Array) -> jax.Array:
    """An entry a channel in as many axes as x, to broadcast."""
    return of.reshape((1,) * (x.ndim - 1) + (-1,)) if of.ndim == 1 else of


def _spread(of: jax.Array, x: jax.Array) -> jax.Array:
    """The same, where its gradient is taken."""
    return spread(of, x) if of.ndim == 1 else of
