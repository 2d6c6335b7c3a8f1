"""Mean 0 and deviation 1, of numbers of any size: what every norm does first.

    x̂ = (x − mean) · factor,   factor = 1 / √(var + eps)

A float32 has numbers up to 3e38, but squares only of those below 1.8e19: beyond, the variance would be infinite and x̂
zero, and far below 1 it would be 0. And the rounded mean of equal numbers is not that number: ``x − mean`` would be
noise, as large as its own deviation. So where the usual two passes give a variance that cannot be relied upon, x is
first shifted by its least value, which leaves exact zeros of a constant, and scaled by a power of two, which rounds
nothing. On a CPU that takes two more passes and is a branch of the program, which hardly ever runs. On a GPU or TPU,
which would wait for such a decision, but fuse the passes, it is done always.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.places import spread, total

Axes = tuple[int, ...] | None  # None: each channel over all else, by what is fastest for that
REACH = 2.0**32  # numbers up to it, and down to its reciprocal, can be squared as they are
DIGITS = 2.0**-9  # a deviation that is a smaller share of the mean would lose digits to the rounding of the mean


class Moments(NamedTuple):
    """Mean and variance of ``x · scale − shift``; an entry a channel, or axes of size 1 where it was averaged."""

    scale: jax.Array
    shift: jax.Array
    mean: jax.Array
    var: jax.Array


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
    scale, shift, mean, var = _moments(x, eps, counted, axes, centred)
    total_var = var + eps * scale * scale
    factor = jnp.where(total_var == 0, 0, lax.rsqrt(total_var))
    normal = x * _row(scale, x)
    if centred:
        normal = normal - _row(shift, x) - _row(mean, x)
    return Standardized(normal * _row(factor, x), factor * scale, (shift + mean) / scale, var / scale / scale)


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
    """How the variance moves with x, from ``along = mean(x̂ · dx)``."""
    return 2 * along / jnp.where(factor == 0, 1, factor)


def _moments(x: jax.Array, eps: jax.Array, counted: jax.Array | None, axes: Axes, centred: bool) -> Moments:
    def with_branch(x: jax.Array, eps: jax.Array, counted: jax.Array | None) -> Moments:
        mean = _mean(x, axes, counted) if centred else None
        var = _mean(jnp.square(x if mean is None else x - _row(mean, x)), axes, counted)
        odd = ~(var < REACH**2) | (var + eps < 1 / REACH**2)
        if mean is None:
            mean = jnp.zeros_like(var)
        else:
            odd |= (var <= jnp.square(DIGITS * mean)) & (mean != 0)
        nothing = jnp.where(odd, 0, jnp.zeros_like(var))  # which varies over a mesh as the other branch does
        usual = Moments(nothing + 1, nothing, nothing + mean, var)

        def of_odd() -> Moments:
            return jax.tree.map(
                functools.partial(jnp.where, odd), _scaled_moments(x, eps, counted, axes, centred), usual
            )

        return lax.cond(_anywhere(odd), of_odd, lambda: usual)

    def straight(x: jax.Array, eps: jax.Array, counted: jax.Array | None) -> Moments:
        return _scaled_moments(x, eps, counted, axes, centred)

    return lax.platform_dependent(x, eps, counted, cpu=with_branch, default=straight)


def _scaled_moments(x: jax.Array, eps: jax.Array, counted: jax.Array | None, axes: Axes, centred: bool) -> Moments:
    over: dict[str, Any] = {"axis": tuple(range(x.ndim - 1)) if axes is None else axes, "keepdims": axes is not None}
    where = None if counted is None else counted.reshape((-1,) + (1,) * (x.ndim - 1))
    least = jnp.min(x, **over, where=where, initial=None if where is None else jnp.inf)
    most = jnp.max(x, **over, where=where, initial=None if where is None else -jnp.inf)
    size = jnp.maximum(jnp.maximum(jnp.abs(least), jnp.abs(most)), jnp.sqrt(eps))
    scale = jnp.where((size < REACH) & (size > 1 / REACH), 1, 1 / power_of_two(size))
    shift = least * scale if centred else jnp.zeros_like(least)
    shifted = x * _row(scale, x) - _row(shift, x)
    mean = _mean(shifted, axes, counted) if centred else shift
    return Moments(scale, shift, mean, _mean(jnp.square(shifted - _row(mean, x)), axes, counted))


def power_of_two(size: jax.Array) -> jax.Array:
    """One near it whose reciprocal is a number too; of 0, 1."""
    limits = jnp.finfo(size.dtype)
    power = lax.reduce_precision(size, limits.nexp, 0)
    return jnp.where(size == 0, 1, jnp.clip(power, 2.0 ** (limits.minexp + 1), 2.0 ** (limits.maxexp - 2)))


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
