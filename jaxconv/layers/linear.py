"""Layers with a kernel: convolution, transposed convolution, and the fully connected layer."""

import functools

import jax

from jaxconv import ops
from jaxconv.errors import InputError, named_errors
from jaxconv.layers.base import Layer, Shape, Tree, makes_layer, stateless
from jaxconv.layers.facts import Facts
from jaxconv.layers.initializers import HE_NORMAL, Initializer, kernel_and_bias, kernel_names, kernel_shape
from jaxconv.shapes import IntOrInts, Padding, Window


@makes_layer
def Conv(
    features: int,
    kernel_size: IntOrInts,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.conv` with a kernel of ``features`` filters: F·F·C·K weights and K biases.

    Args:
        features: number of filters, K.
        kernel_size: size of the window, F: an int, or one int per spatial dimension.
        use_bias: add a bias; set it to False before a batch norm, whose bias has the same effect.
        kernel_init: ``(key, shape, dtype) -> kernel``; He normal by default, which suits relu.
        stride, padding, dilation, groups, padding_mode, flip_kernel, impl, precision: as in the op.

    >>> params, _ = Conv(6, 5).init(jax.random.key(0), (32, 32, 1))
    >>> sum(p.size for p in params.values())                             # LeNet's first layer: lecture row 000-15
    156
    """

    @named_errors(name="Conv")
    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        shape = kernel_shape(kernel_size, input_shape, groups, features)
        return kernel_and_bias(kernel_init, key, shape, use_bias), {}

    op = functools.partial(
        ops.conv,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        flip_kernel=flip_kernel,
        impl=impl,
        precision=precision,
    )
    window = Window(kernel_size, stride, padding, dilation)
    facts = Facts(kernel_use="slide")
    return stateless("conv", op, init, kernel_names(use_bias), window=window, name=name, facts=facts)


@makes_layer
def ConvTranspose(
    features: int,
    kernel_size: IntOrInts,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    output_padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.conv_transpose` with a kernel ``(*window, C // groups, features)``, for upsampling.

    Args:
        features: number of filters, which is the number of output channels.
        kernel_size: size of the window: an int, or one int per spatial dimension.
        use_bias, kernel_init: as in :func:`Conv`.
        stride, padding, output_padding, dilation, groups, impl, precision: as in the op.

    >>> layer = ConvTranspose(4, 2, stride=2)
    >>> params, state = layer.init(jax.random.key(0), (7, 7, 3))
    >>> layer.apply(params, state, jax.numpy.ones((1, 7, 7, 3)))[0].shape
    (1, 14, 14, 4)
    """

    @named_errors(name="ConvTranspose")
    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        shape = kernel_shape(kernel_size, input_shape, groups, features)
        return kernel_and_bias(kernel_init, key, shape, use_bias), {}

    op = functools.partial(
        ops.conv_transpose,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        impl=impl,
        precision=precision,
    )
    facts = Facts(keeps_positions=False, kernel_use="scatter")
    return stateless("conv_transpose", op, init, kernel_names(use_bias), name=name, facts=facts)


@makes_layer
def Dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.dense` with a kernel ``(inputs, features)``.

    >>> params, _ = Dense(64).init(jax.random.key(0), (576,))
    >>> sum(p.size for p in params.values())                             # lecture row 004-19
    36928
    """

    @named_errors(name="Dense")
    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        if len(input_shape) != 1:
            raise InputError(
                f"input_shape {input_shape} should be (inputs,), without the batch axis: put flatten before the layer"
            )
        return kernel_and_bias(kernel_init, key, (*input_shape, features), use_bias), {}

    op = functools.partial(ops.dense, precision=precision)
    return stateless("dense", op, init, kernel_names(use_bias), name=name, facts=Facts(kernel_use="dense"))
