"""Norms: the op, the same written with ``jnp.mean`` and ``jnp.var``, and one gradient for all of them, derived by hand.

All are ``y = x̂·scale + bias`` with ``x̂ = (x − mean) / √(var + eps)``, and differ in what mean and var are over. With
``g = dy·scale``, the gradient by x̂, and every mean over the same entries again,

    dx = (g − mean g − x̂ · mean(g·x̂)) / √(var + eps)        d_scale = Σ dy·x̂        d_bias = Σ dy

What would only move the mean, or the deviation, changes nothing in the end, so it is taken out of g. ``rms_norm``
subtracts no mean, so ``mean g`` stays in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import ops
from jaxconv.ops import numerics
from jaxconv.testing.cases.base import (
    OpCase,
    OpCaseOptions,
    OpCaseSpec,
    random_parameters,
    random_x,
    with_custom_gradient,
)

EPS = 1e-5

# Which axes of (N, *spatial, groups, C // groups) the means are over, for an x of so many axes.
AXES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "batch_norm": lambda ndim: tuple(range(ndim - 1)),
    "layer_norm": lambda ndim: (ndim,),
    "group_norm": lambda ndim: (*range(1, ndim - 1), ndim),
    "instance_norm": lambda ndim: tuple(range(1, ndim - 1)),
    "rms_norm": lambda ndim: (ndim,),
}


def _norm(asked: OpCaseOptions) -> OpCase:
    centred, grouped = asked.op != "rms_norm", asked.op == "group_norm"
    op = partial(getattr(ops, asked.op), eps=EPS, **{"num_groups": asked.groups} if grouped else {})
    groups = asked.groups if grouped else 1

    def over(statistic: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        """A mean or a variance, in the place of every entry that it is over."""
        parts = x.reshape(*x.shape[:-1], groups, -1)
        found = statistic(parts, axis=AXES[asked.op](x.ndim), keepdims=True)
        return jnp.broadcast_to(found, parts.shape).reshape(x.shape)

    def standardized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x̂, and what x was divided by."""
        deviation = jnp.sqrt((over(jnp.var, x) if centred else over(jnp.mean, x * x)) + EPS)
        return (x - over(jnp.mean, x) if centred else x) / deviation, deviation

    def plain(x: jax.Array, scale: jax.Array, *bias: jax.Array) -> jax.Array:
        y = standardized(x)[0] * _row(scale, x)
        return y + _row(bias[0], x) if bias else y

    def gradient(*args_and_dy: jax.Array) -> Any:
        x, scale, *bias, dy = map(numerics.upcast, args_and_dy)
        x_hat, deviation = standardized(x)
        g = dy * _row(scale, x)
        dx = (g - (over(jnp.mean, g) if centred else 0) - x_hat * over(jnp.mean, g * x_hat)) / deviation
        d_scale, d_bias = (d.sum(axis=tuple(range(x.ndim - 1))) for d in (dy * x_hat, dy))
        return [d.astype(args_and_dy[0].dtype) for d in (dx, d_scale, *([d_bias] if bias else []))]

    functions: dict[str, Callable[..., jax.Array]] = {
        "op": op,
        "mean and var": plain,
        "manual": with_custom_gradient(op, gradient),
    }
    names = ("x", "scale", "bias") if centred else ("x", "scale")
    args = (random_x(asked), *random_parameters(asked, *[asked.input_shape[-1:]] * (len(names) - 1)))
    return OpCase(functions, args, names)


def _row(vector: jax.Array, x: jax.Array) -> jax.Array:
    """One entry a channel, in as many axes as x."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


NORMS = {
    op: OpCaseSpec(_norm, frozenset({"groups"} if op == "group_norm" else ()), spatial=op == "instance_norm")
    for op in AXES
}
