"""Cases of normalization: the op, ``jnp.mean`` and ``jnp.var``, and one hand-derived gradient.

All are ``y = x̂·scale + bias`` with ``x̂ = (x − mean) / √(var + eps)``, with means and variances over different axes.
With ``g = dy·scale``, the gradient by x̂, and means over the same axes,

    dx = (g − mean g − x̂ · mean(g·x̂)) / √(var + eps)        d_scale = Σ dy·x̂        d_bias = Σ dy

The output does not depend on the mean and the scale of x, so the components of g that change them are removed.
``rms_norm`` subtracts no mean, so ``mean g`` is not removed.
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

# Axes of (N, *spatial, groups, C // groups) of the mean, by the number of axes of x.
AXES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "batch_norm": lambda ndim: tuple(range(ndim - 1)),
    "layer_norm": lambda ndim: (ndim,),
    "group_norm": lambda ndim: (*range(1, ndim - 1), ndim),
    "instance_norm": lambda ndim: tuple(range(1, ndim - 1)),
    "rms_norm": lambda ndim: (ndim,),
}


def _norm(options: OpCaseOptions) -> OpCase:
    centered, grouped = options.op != "rms_norm", options.op == "group_norm"
    op = partial(getattr(ops, options.op), eps=EPS, **{"num_groups": options.groups} if grouped else {})
    groups = options.groups if grouped else 1

    def statistic(function: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        """Return a mean or variance, broadcast to the shape of x."""
        x_by_group = x.reshape(*x.shape[:-1], groups, -1)
        values = function(x_by_group, axis=AXES[options.op](x.ndim), keepdims=True)
        return jnp.broadcast_to(values, x_by_group.shape).reshape(x.shape)

    def standardized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return x̂ and the deviation."""
        deviation = jnp.sqrt((statistic(jnp.var, x) if centered else statistic(jnp.mean, x * x)) + EPS)
        return (x - statistic(jnp.mean, x) if centered else x) / deviation, deviation

    def reference(x: jax.Array, scale: jax.Array, *bias: jax.Array) -> jax.Array:
        y = standardized(x)[0] * _per_channel(scale, x)
        return y + _per_channel(bias[0], x) if bias else y

    def gradient(*args_and_dy: jax.Array) -> Any:
        x, scale, *bias, dy = map(numerics.upcast, args_and_dy)
        x_hat, deviation = standardized(x)
        g = dy * _per_channel(scale, x)
        dx = (g - (statistic(jnp.mean, g) if centered else 0) - x_hat * statistic(jnp.mean, g * x_hat)) / deviation
        d_scale, d_bias = (d.sum(axis=tuple(range(x.ndim - 1))) for d in (dy * x_hat, dy))
        return [d.astype(args_and_dy[0].dtype) for d in (dx, d_scale, *([d_bias] if bias else []))]

    functions: dict[str, Callable[..., jax.Array]] = {
        "op": op,
        "mean and var": reference,
        "manual": with_custom_gradient(op, gradient),
    }
    names = ("x", "scale", "bias") if centered else ("x", "scale")
    args = (random_x(options), *random_parameters(options, *[options.input_shape[-1:]] * (len(names) - 1)))
    return OpCase(functions, args, names)


def _per_channel(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape a vector of channels so that it broadcasts with x."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


NORMS = {
    op: OpCaseSpec(_norm, frozenset({"groups"} if op == "group_norm" else ()), spatial=op == "instance_norm")
    for op in AXES
}
