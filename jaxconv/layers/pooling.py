"""Pooling layers, without parameters. Global pooling is a plain function, which can be used as a layer directly."""

import functools
from collections.abc import Callable

import jax

from jaxconv import ops
from jaxconv.layers.base import Layer, makes_layer, stateless
from jaxconv.layers.facts import POINTWISE, Pools
from jaxconv.shapes import IntOrInts, Padding, Window


@makes_layer
def MaxPool(
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    ties: str = "first",
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.max_pool` as a Layer; it has no parameters.

    >>> MaxPool(2).apply({}, {}, jax.numpy.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    op = functools.partial(ops.max_pool, ceil_mode=ceil_mode, ties=ties)
    return _pool("max_pool", "max", op, window_shape, stride, padding, dilation, name)


@makes_layer
def AvgPool(
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.avg_pool` as a Layer; it has no parameters.

    >>> AvgPool(2).apply({}, {}, jax.numpy.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    op = functools.partial(ops.avg_pool, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
    return _pool("avg_pool", "mean", op, window_shape, stride, padding, dilation, name)


@makes_layer
def LpPool(
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    p: float = 2.0,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.lp_pool` as a Layer; it has no parameters.

    >>> LpPool(2).apply({}, {}, jax.numpy.ones((1, 4, 4, 1)))[0][0, 0, 0]
    Array([2.], dtype=float32)
    """
    op = functools.partial(ops.lp_pool, ceil_mode=ceil_mode, p=p)
    return _pool("lp_pool", "lp", op, window_shape, stride, padding, dilation, name)


def _pool(
    kind: str,
    pools: Pools,
    op: Callable[..., jax.Array],
    window_shape: IntOrInts,
    stride: IntOrInts | None,
    padding: Padding,
    dilation: IntOrInts,
    name: str | None,
) -> Layer:
    """Return a pooling layer with its window, from which receptive fields are computed."""
    op = functools.partial(op, window_shape=window_shape, stride=stride, padding=padding, dilation=dilation)
    window = Window.for_pooling(window_shape, stride, padding, dilation)
    return stateless(kind, op, window=window, name=name, facts=POINTWISE._replace(pools=pools))
