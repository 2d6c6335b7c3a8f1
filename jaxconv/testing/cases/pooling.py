"""Cases of pools: by the kernel offsets of the window, by ``lax.reduce_window``, and with hand-derived gradients."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv import ops
from jaxconv.errors import error_context
from jaxconv.ops import backward
from jaxconv.ops.pooling import window_counts
from jaxconv.shapes import ResolvedWindow, Window, resolve_window
from jaxconv.testing.cases.base import OpCase, OpCaseOptions, OpCaseSpec, unary_case

ReduceWindow = Callable[[jax.Array, np.ndarray, Callable[..., Any]], jax.Array]


def _pooling(
    options: OpCaseOptions,
    variants: Mapping[str, Mapping[str, Any]],
    by_lax: Callable[[jax.Array, ReduceWindow, np.ndarray], jax.Array],
    **kwargs: Any,
) -> OpCase:
    """Return the case of a pool: variants of the op, its default first, and the pool by ``lax.reduce_window``."""
    size = options.input_shape[1:-1]
    with error_context(options.op):
        window = resolve_window(
            Window.for_pooling(options.kernel_size, options.stride, options.padding, options.dilation), size
        )
    kwargs |= {
        "window_shape": options.kernel_size,
        "stride": options.stride,
        "padding": options.padding,
        "dilation": options.dilation,
    }
    pool = partial(getattr(ops, options.op), **kwargs)
    functions: dict[str, Callable[..., jax.Array]] = {
        name: partial(pool, **variant) for name, variant in variants.items()
    }
    if set(window.dilation) == {1}:  # jax 0.10 has no derivative of reduce_window with dilation
        count = window_counts(window, size, include_pad=False)[None, ..., None]
        functions["reduce_window"] = lambda x: by_lax(x, _reduce_window(window), count)
    return unary_case(options, functions, partial(getattr(backward, options.op), **kwargs))


def _reduce_window(window: ResolvedWindow) -> ReduceWindow:
    """Return ``lax.reduce_window`` with the given window."""
    return partial(
        lax.reduce_window,
        window_dimensions=(1, *window.size, 1),
        window_strides=(1, *window.stride, 1),
        padding=((0, 0), *window.padding, (0, 0)),
    )


def _max_pool(options: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, reduce_window: ReduceWindow, count: np.ndarray) -> jax.Array:
        return reduce_window(x, np.array(-np.inf, x.dtype), lax.max)

    return _pooling(options, {"first": {}, "split": {"ties": "split"}}, by_lax)


def _avg_pool(options: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, reduce_window: ReduceWindow, count: np.ndarray) -> jax.Array:
        return reduce_window(x, np.array(0, x.dtype), lax.add) / jnp.asarray(count, x.dtype)

    return _pooling(options, {"taps": {}}, by_lax)


def _lp_pool(options: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, reduce_window: ReduceWindow, count: np.ndarray) -> jax.Array:
        total = reduce_window(jnp.abs(x) ** options.p, np.array(0, x.dtype), lax.add)
        return jnp.where(total == 0, total, jnp.where(total == 0, jnp.ones((), x.dtype), total) ** (1 / options.p))

    return _pooling(options, {"taps": {}}, by_lax, p=options.p)


def _global_avg_pool(options: OpCaseOptions) -> OpCase:
    functions = {"mean": ops.global_avg_pool, "avg_pool": lambda x: _pool_whole_image(ops.avg_pool, x)}
    return unary_case(options, functions, backward.global_avg_pool)


def _global_max_pool(options: OpCaseOptions) -> OpCase:
    functions: dict[str, Callable[..., jax.Array]] = {
        "first": partial(ops.global_max_pool, ties="first"),
        "split": partial(ops.global_max_pool, ties="split"),
        # ties="first" is a chain over all kernel offsets, which is slow to compile for a window of the whole image.
        "max_pool": lambda x: _pool_whole_image(partial(ops.max_pool, ties="split"), x),
    }

    def gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        is_max = jnp.arange(pixels.shape[1])[None, :, None] == pixels.argmax(axis=1, keepdims=True)
        return jnp.where(is_max, dy[:, None], jnp.zeros((), dy.dtype)).reshape(x.shape)

    return unary_case(options, functions, gradient)


def _pool_whole_image(pool: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """Pool with one window, the whole image."""
    return pool(x, x.shape[1:-1]).reshape(x.shape[0], x.shape[-1])


USES = frozenset({"kernel_size", "stride", "padding", "dilation", "kinks"})
POOLS = {
    "max_pool": OpCaseSpec(_max_pool, USES, spatial=True),
    "avg_pool": OpCaseSpec(_avg_pool, USES, spatial=True),
    "lp_pool": OpCaseSpec(_lp_pool, USES | {"p"}, spatial=True),
    "global_avg_pool": OpCaseSpec(_global_avg_pool, frozenset({"kinks"}), spatial=True, input_shape=(8, 7, 7, 16)),
    "global_max_pool": OpCaseSpec(_global_max_pool, frozenset({"kinks"}), spatial=True, input_shape=(8, 7, 7, 16)),
}
