"""LeNet-5, as the lectures draw it (rows 000-14 to 000-21)."""

from collections.abc import Callable

import jax
from jax.nn.initializers import glorot_uniform

from jaxconv.layers import Conv, Dense, Layer, MaxPool, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu, tanh


@makes_layer
def lenet5(
    classes: int = 10,
    *,
    activation: Callable[[jax.Array], jax.Array] = tanh,
    pool: Callable[..., Layer] = MaxPool,
    impl: str = "auto",
) -> Layer:
    """Two convolutions, two poolings, three dense layers: 61,706 parameters on a 32×32×1 image.

    This is the form that is taught. The original is :func:`jaxconv.models.lenet5_1998`: its pooling adds up and has
    trainable gains, its second convolution is connected sparsely, and its output measures distances.

    Args:
        classes: the number of outputs.
        activation: tanh, or relu, which the lectures prefer; sigmoid works, slowly.
        pool: makes a layer of a window: ``MaxPool``, ``AvgPool``, or ``LpPool``, the L2 norm.
        impl: the convolutions' lowering.

    Source: LeCun et al., 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.

    >>> from jaxconv.explain import summarize
    >>> summarize(lenet5(), (32, 32, 1)).params
    61706
    """
    kernel_init = jax.nn.initializers.he_normal() if activation is relu else glorot_uniform()
    return serial(
        Conv(6, (5, 5), kernel_init=kernel_init, impl=impl),
        activation,
        pool(2),
        Conv(16, (5, 5), kernel_init=kernel_init, impl=impl),
        activation,
        pool(2),
        flatten,
        Dense(120, kernel_init=kernel_init),
        activation,
        Dense(84, kernel_init=kernel_init),
        activation,
        Dense(classes, kernel_init=glorot_uniform()),
    )
