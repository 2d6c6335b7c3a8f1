"""A plain network of 3×3 convolutions for small images: the largest of those that ``jaxconv bench`` times."""

from typing import Any

from jaxconv import checks
from jaxconv.layers import BatchNorm, Conv, Dense, Dropout, Layer, MaxPool, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu


@makes_layer
def vgg6(classes: int = 10, *, batch_norm: bool = False, dropout: float = 0.0, impl: str = "auto") -> Layer:
    """Six 3×3 convolutions, a pooling after each second, and one dense layer: 307,498 parameters on a 32×32×3 image.

    The benchmark's network, and no paper's: the stages of VGG (Simonyan and Zisserman, 2014,
    https://arxiv.org/abs/1409.1556), of 32, 64 and 128 channels.

    Args:
        classes: the number of outputs.
        batch_norm: normalise what each convolution makes; the norm's bias is then the convolution's too.
        dropout: the fraction dropped before the dense layer.
        impl: the convolutions' lowering.

    Raises:
        InputError: a batch_norm that is not True or False, or a dropout that is no fraction.

    >>> from jaxconv.explain import summarize
    >>> summarize(vgg6(), (32, 32, 3)).params, summarize(vgg6(batch_norm=True), (28, 28, 1)).params
    (307498, 298410)
    """
    checks.flag("vgg6", "batch_norm", batch_norm)

    def stage(features: int) -> list[Any]:
        conv = Conv(features, (3, 3), padding="SAME", use_bias=not batch_norm, impl=impl)
        one = [conv, BatchNorm(), relu] if batch_norm else [conv, relu]
        return [*one, *one, MaxPool(2)]

    before = [Dropout(dropout)] if dropout else []
    return serial(*stage(32), *stage(64), *stage(128), flatten, *before, Dense(classes))
