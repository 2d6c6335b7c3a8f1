"""A convnet small enough to train on 8×8 digits in seconds: the network of ``jaxconv train`` without options."""

from jaxconv.layers import Conv, Dense, Dropout, Layer, MaxPool, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu


@makes_layer
def small_cnn(classes: int = 10, *, impl: str = "auto") -> Layer:
    """Convolution twice, pooling, convolution, pooling, and one dense layer: 30,634 parameters on 8×8×1.

    Args:
        classes: the number of outputs.
        impl: the convolutions' lowering.

    >>> from jaxconv.explain import summarize
    >>> summarize(small_cnn(), (8, 8, 1)).params
    30634
    """
    return serial(
        Conv(32, (3, 3), padding="SAME", impl=impl),
        relu,
        Conv(32, (3, 3), padding="SAME", impl=impl),
        relu,
        MaxPool(2),
        Conv(64, (3, 3), padding="SAME", impl=impl),
        relu,
        MaxPool(2),
        flatten,
        Dropout(0.4),
        Dense(classes),
    )
