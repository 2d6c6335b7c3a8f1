"""Layers made of ops: each names the op's parameters, says how they start, and passes the options on."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn.initializers import he_normal

from jaxconv import ops
from jaxconv.errors import InputError
from jaxconv.layers.layer import Layer, Shape, Tree, check_entries, stateless
from jaxconv.ops import checks
from jaxconv.shapes import Padding, Sizes, Window, per_dimension

Initializer = Callable[..., jax.Array]

HE_NORMAL: Initializer = he_normal()


def Conv(
    features: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    groups: int = 1,
    pad_mode: str = "zeros",
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.conv` with a kernel of ``features`` filters: F·F·C·K weights and K biases.

    Args:
        features: the number of filters, K.
        kernel_size: F, an int or one a spatial dimension.
        use_bias: without one where a batch norm follows, whose bias does the same.
        kernel_init: ``(key, shape, dtype) -> kernel``; He's by default, for relu.
        stride, padding, dilation, groups, pad_mode, impl, precision: as in the op.

    >>> params, _ = Conv(6, 5).init(jax.random.key(0), (32, 32, 1))
    >>> sum(p.size for p in params.values())                             # LeNet's first layer: lecture row 000-15
    156
    """

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        *size, channels = in_shape
        try:
            window = per_dimension(kernel_size, len(size), "kernel_size")
        except InputError as error:
            raise InputError(f"Conv: {error}; in_shape {in_shape} should be one example's, (H, W, C)") from None
        if groups < 1 or channels % groups:
            raise InputError(f"Conv: groups={groups} does not divide the {channels} channels of {in_shape}")
        return _kernel_and_bias("Conv", kernel_init, key, (*window, channels // groups, features), use_bias), {}

    op = functools.partial(
        ops.conv,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        pad_mode=pad_mode,
        impl=impl,
        precision=precision,
    )
    window = Window(kernel_size, stride, padding, dilation)
    return stateless("conv", op, init, _names(use_bias), window=window, name=name)


def Dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.dense` with a kernel from all inputs to ``features`` outputs.

    >>> params, _ = Dense(64).init(jax.random.key(0), (576,))
    >>> sum(p.size for p in params.values())                             # lecture row 004-19
    36928
    """

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        if len(in_shape) != 1:
            raise InputError(f"Dense: in_shape {in_shape} should be one row of values: put flatten before it")
        return _kernel_and_bias("Dense", kernel_init, key, (*in_shape, features), use_bias), {}

    op = functools.partial(ops.dense, precision=precision)
    return stateless("dense", op, init, _names(use_bias), name=name)


def MaxPool(
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.max_pool` as a Layer; it has no parameters.

    >>> MaxPool(2).apply({}, {}, jnp.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    op = functools.partial(
        ops.max_pool, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    seen = Window(window, window if stride is None else stride, padding, dilation)
    return stateless("max_pool", op, window=seen, name=name)


def AvgPool(
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.avg_pool` as a Layer; it has no parameters.

    >>> AvgPool(2).apply({}, {}, jnp.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    op = functools.partial(
        ops.avg_pool,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    seen = Window(window, window if stride is None else stride, padding, dilation)
    return stateless("avg_pool", op, window=seen, name=name)


def BatchNorm(*, decay: float = 0.9, eps: float = 1e-5, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.batch_norm`, with the batch's statistics in training and running ones otherwise.

    In training ``running ← decay · running + (1 − decay) · batch``, with the batch's own (biased) variance.

    Args:
        decay: the share of the old value: 0.9 is PyTorch's ``momentum=0.1``.
        eps: keeps a constant channel finite.

    >>> params, state = BatchNorm().init(jax.random.key(0), (8, 8, 4))
    >>> sorted(params), sorted(state)
    (['bias', 'scale'], ['mean', 'var'])
    """

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        channels = in_shape[-1:]
        # Four arrays, none of them shared: a training step may give the memory of each away.
        ones, zeros = functools.partial(jnp.ones, channels), functools.partial(jnp.zeros, channels)
        params = {"scale": ones(jnp.float32), "bias": zeros(jnp.float32)}
        return params, {"mean": zeros(jnp.float32), "var": ones(jnp.float32)}

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_entries("params", params, ("scale", "bias"))
        check_entries("state", state, ("mean", "var"))
        if not train:
            return ops.batch_norm(x, **params, **state, eps=eps), state
        mean, var = ops.batch_statistics(x, mask)
        batch = {"mean": mean, "var": var}
        running = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state, batch)
        return ops.batch_norm(x, **params, **batch, eps=eps), running

    return Layer("bn", init, apply, name=name)


def Dropout(rate: float, *, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.dropout` in training, nothing otherwise.

    Args:
        rate: the fraction dropped.

    >>> Dropout(0.5).apply({}, {}, jnp.ones((1, 3)))[0]
    Array([[1., 1., 1.]], dtype=float32)
    """

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        return (ops.dropout(x, key, rate) if train else x), state

    checks.dropped("Dropout", rate)
    return Layer("dropout", lambda key, in_shape: ({}, {}), apply, name=name)


def _kernel_and_bias(layer: str, init: Initializer, key: jax.Array, shape: Shape, use_bias: bool) -> Tree:
    features = shape[-1]
    if not isinstance(features, int) or features < 1:
        raise InputError(f"{layer}: features={features} should be an int of at least 1")
    params = {"kernel": init(key, shape, jnp.float32)}
    return params | {"bias": jnp.zeros(features, jnp.float32)} if use_bias else params


def _names(use_bias: bool) -> tuple[str, ...]:
    return ("kernel", "bias") if use_bias else ("kernel",)
