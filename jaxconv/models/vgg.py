"""A plain network of 3×3 convolutions for small images: the largest of those that ``jaxconv bench`` times."""

from functools import partial

from jaxconv.layers import Conv, Dense, Layer, MaxPool, serial
from jaxconv.ops import flatten, relu


def vgg6(classes: int = 10, *, impl: str = "auto") -> Layer:
    """Six 3×3 convolutions, a pooling after each second, and one dense layer: 307,498 parameters on a 32×32×3 image.

    The benchmark's network, and no paper's: the stages of VGG (Simonyan and Zisserman, 2014,
    https://arxiv.org/abs/1409.1556), of 32, 64 and 128 channels.

    Args:
        classes: the number of outputs.
        impl: the convolutions' lowering.

    >>> from jaxconv.explain import summarize
    >>> summarize(vgg6(), (32, 32, 3)).params
    307498
    """
    conv = partial(Conv, kernel_size=(3, 3), padding="SAME", impl=impl)
    return serial(
        *(conv(32), relu, conv(32), relu, MaxPool(2)),
        *(conv(64), relu, conv(64), relu, MaxPool(2)),
        *(conv(128), relu, conv(128), relu, MaxPool(2)),
        *(flatten, Dense(classes)),
    )
