"""Pools: each by the taps of its window, by ``lax.reduce_window``, and with its gradient derived by hand."""

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

Slide = Callable[[jax.Array, np.ndarray, Callable[..., Any]], jax.Array]


def _pooling(
    asked: OpCaseOptions,
    ways: Mapping[str, Mapping[str, Any]],
    by_lax: Callable[[jax.Array, Slide, np.ndarray], jax.Array],
    **options: Any,
) -> OpCase:
    """The op in its ways, the first of which is its default, and the same made of what slides in lax."""
    size = asked.input_shape[1:-1]
    with error_context(asked.op):
        window = resolve_window(
            Window.for_pooling(asked.kernel_size, asked.stride, asked.padding, asked.dilation), size
        )
    options |= {
        "window_shape": asked.kernel_size,
        "stride": asked.stride,
        "padding": asked.padding,
        "dilation": asked.dilation,
    }
    pool = partial(getattr(ops, asked.op), **options)
    functions: dict[str, Callable[..., jax.Array]] = {name: partial(pool, **more) for name, more in ways.items()}
    if set(window.dilation) == {1}:  # jax 0.10 has no derivative of reduce_window with dilation
        count = window_counts(window, size, include_pad=False)[None, ..., None]
        functions["reduce_window"] = lambda x: by_lax(x, _slide(window), count)
    return unary_case(asked, functions, partial(getattr(backward, asked.op), **options))


def _slide(window: ResolvedWindow) -> Slide:
    return partial(
        lax.reduce_window,
        window_dimensions=(1, *window.size, 1),
        window_strides=(1, *window.stride, 1),
        padding=((0, 0), *window.padding, (0, 0)),
    )


def _max_pool(asked: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, slide: Slide, count: np.ndarray) -> jax.Array:
        return slide(x, np.array(-np.inf, x.dtype), lax.max)

    return _pooling(asked, {"first": {}, "split": {"ties": "split"}}, by_lax)


def _avg_pool(asked: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, slide: Slide, count: np.ndarray) -> jax.Array:
        return slide(x, np.array(0, x.dtype), lax.add) / jnp.asarray(count, x.dtype)

    return _pooling(asked, {"taps": {}}, by_lax)


def _lp_pool(asked: OpCaseOptions) -> OpCase:
    def by_lax(x: jax.Array, slide: Slide, count: np.ndarray) -> jax.Array:
        total = slide(jnp.abs(x) ** asked.p, np.array(0, x.dtype), lax.add)
        return jnp.where(total == 0, total, jnp.where(total == 0, jnp.ones((), x.dtype), total) ** (1 / asked.p))

    return _pooling(asked, {"taps": {}}, by_lax, p=asked.p)


def _global_avg_pool(asked: OpCaseOptions) -> OpCase:
    functions = {"mean": ops.global_avg_pool, "avg_pool": lambda x: _of_all(ops.avg_pool, x)}
    return unary_case(asked, functions, backward.global_avg_pool)


def _global_max_pool(asked: OpCaseOptions) -> OpCase:
    functions: dict[str, Callable[..., jax.Array]] = {
        "first": partial(ops.global_max_pool, ties="first"),
        "split": partial(ops.global_max_pool, ties="split"),
        # (With ties="first" it is a chain of all taps, slow to compile for the hundreds of a whole image.)
        "max_pool": lambda x: _of_all(partial(ops.max_pool, ties="split"), x),
    }

    def gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        won = jnp.arange(pixels.shape[1])[None, :, None] == pixels.argmax(axis=1, keepdims=True)
        return jnp.where(won, dy[:, None], jnp.zeros((), dy.dtype)).reshape(x.shape)

    return unary_case(asked, functions, gradient)


def _of_all(pool: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """The pool with a single window, the whole image."""
    return pool(x, x.shape[1:-1]).reshape(x.shape[0], x.shape[-1])


USES = frozenset({"kernel_size", "stride", "padding", "dilation", "kinks"})
POOLS = {
    "max_pool": OpCaseSpec(_max_pool, USES, spatial=True),
    "avg_pool": OpCaseSpec(_avg_pool, USES, spatial=True),
    "lp_pool": OpCaseSpec(_lp_pool, USES | {"p"}, spatial=True),
    "global_avg_pool": OpCaseSpec(_global_avg_pool, frozenset({"kinks"}), spatial=True, input_shape=(8, 7, 7, 16)),
    "global_max_pool": OpCaseSpec(_global_max_pool, frozenset({"kinks"}), spatial=True, input_shape=(8, 7, 7, 16)),
}
