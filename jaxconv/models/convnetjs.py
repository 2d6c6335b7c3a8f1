"""The network of the ConvNetJS demo for CIFAR-10, which learns in the browser (row 004-13)."""

from functools import partial

from jaxconv.layers import Conv, Dense, Layer, MaxPool, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu


@makes_layer
def convnetjs(classes: int = 10, *, impl: str = "auto") -> Layer:
    """Three 5×5 convolutions of 16, 20 and 20 filters, a pooling after each: 22,466 parameters on a 32×32×3 image.

    The demo trains it with images that are shifted by up to 2 pixels and mirrored
    (:mod:`jaxconv.data.augment`: ``shift(2)``, ``flip()``).

    Args:
        classes: the number of outputs.
        impl: the convolutions' lowering.

    Source: A. Karpathy, https://cs.stanford.edu/people/karpathy/convnetjs/demo/cifar10.html; lecture row 004-13.

    >>> from jaxconv.explain import summarize
    >>> summarize(convnetjs(), (32, 32, 3)).params
    22466
    """
    conv = partial(Conv, kernel_size=5, padding="SAME", impl=impl)
    return serial(
        *(conv(16), relu, MaxPool(2)),
        *(conv(20), relu, MaxPool(2)),
        *(conv(20), relu, MaxPool(2)),
        *(flatten, Dense(classes)),
    )
