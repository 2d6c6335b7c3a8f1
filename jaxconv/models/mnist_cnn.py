"""The lecture's convnet for MNIST (rows 004-19, 004-20)."""

from jax.nn.initializers import glorot_uniform

from jaxconv.layers import Conv, Dense, Layer, MaxPool, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu


@makes_layer
def mnist_cnn(classes: int = 10, *, impl: str = "auto") -> Layer:
    """Three 3×3 convolutions and two dense layers: 93,322 parameters on a 28×28×1 image.

    Kernels start as Keras starts them (Glorot uniform), since the lecture's network is a Keras one.

    Args:
        classes: the number of outputs.
        impl: the convolutions' lowering.

    >>> from jaxconv.explain import summarize
    >>> summarize(mnist_cnn(), (28, 28, 1)).params
    93322
    """
    init = glorot_uniform()
    return serial(
        Conv(32, (3, 3), kernel_init=init, impl=impl),
        relu,
        MaxPool(2),
        Conv(64, (3, 3), kernel_init=init, impl=impl),
        relu,
        MaxPool(2),
        Conv(64, (3, 3), kernel_init=init, impl=impl),
        relu,
        flatten,
        Dense(64, kernel_init=init),
        relu,
        Dense(classes, kernel_init=init),
    )
