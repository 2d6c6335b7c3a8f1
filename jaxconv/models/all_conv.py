"""The All-Convolutional Net: no pooling and no dense layer (row 001-13)."""

from functools import partial
from typing import Any

from jaxconv import checks
from jaxconv.layers import Conv, Dropout, Layer, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import global_avg_pool, relu


@makes_layer
def all_conv(classes: int = 10, *, width: int = 96, dropout: bool = True, impl: str = "auto") -> Layer:
    """All-CNN-C: convolutions with stride 2 make the image smaller: 1,369,738 parameters on a 32×32×3 image.

    Two 3×3 convolutions of 96 filters and a third with stride 2, then the same of 192; then one of 192 that pads
    nothing, a 1×1 of 192 and a 1×1 with a filter a class, whose mean over all places is the class's logit. So images
    of any size from 9 pixels a side will do.

    As in the paper, a fifth of the image's values are dropped in training and half of what each convolution with stride
    2 makes. Its table has a relu after the last convolution too, which is left out: a logit below 0 could not learn.

    Args:
        classes: the number of outputs.
        width: of the first three convolutions; the later ones have twice as many filters. The paper's is 96.
        dropout: the paper's.
        impl: the convolutions' lowering.

    Raises:
        InputError: a width that is no whole number of at least 1, or a dropout that is not True or False.

    Source: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806, tables 1 and 2; lecture row 001-13.

    >>> from jaxconv.explain import summarize
    >>> table = summarize(all_conv(), (32, 32, 3))
    >>> table.params, sorted({row.kind for row in table.rows})
    (1369738, ['conv', 'dropout', 'global_avg_pool', 'relu'])
    """
    checks.whole("all_conv", 1, width=width)
    checks.flag("all_conv", "dropout", dropout)
    conv = partial(Conv, kernel_size=3, padding=1, impl=impl)

    def drop(rate: float) -> list[Layer]:
        return [Dropout(rate)] if dropout else []

    def smaller(features: int) -> list[Any]:
        return [conv(features), relu, conv(features), relu, conv(features, stride=2), relu, *drop(0.5)]

    return serial(
        *drop(0.2),
        *smaller(width),
        *smaller(2 * width),
        *(conv(2 * width, padding=0), relu, conv(2 * width, kernel_size=1, padding=0), relu),
        *(conv(classes, kernel_size=1, padding=0), global_avg_pool),
    )
