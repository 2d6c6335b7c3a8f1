"""Plain chains of layers: an MLP, small convolutional networks, a VGG and the All-CNN."""

from functools import partial
from typing import Any

from jax.nn.initializers import glorot_uniform

from jaxconv import checks
from jaxconv.errors import named_errors
from jaxconv.layers import BatchNorm, Conv, Dense, Dropout, Layer, MaxPool, serial
from jaxconv.layers.base import makes_layer
from jaxconv.models.registry import register_model
from jaxconv.ops import flatten, global_avg_pool, relu


@register_model(input_shape=(8, 8, 1))
@makes_layer
def small_cnn(num_classes: int = 10, *, impl: str = "auto") -> Layer:
    """Convolution twice, pooling, convolution, pooling, and one dense layer: 30,634 parameters on 8×8×1.

    Args:
        num_classes: the number of outputs.
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
        Dense(num_classes),
    )


@register_model(input_shape=(28, 28, 1))
@makes_layer
def mnist_cnn(num_classes: int = 10, *, impl: str = "auto") -> Layer:
    """Three 3×3 convolutions and two dense layers: 93,322 parameters on a 28×28×1 image.

    Kernels start as Keras starts them (Glorot uniform), since the lecture's network is a Keras one.

    Args:
        num_classes: the number of outputs.
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
        Dense(num_classes, kernel_init=init),
    )


@register_model(input_shape=(8, 8, 1))
@makes_layer
def mlp(num_classes: int = 10, *, hidden: tuple[int, ...] = (128, 128)) -> Layer:
    """Flatten, then dense layers with relu between them. It takes images of any size, and knows nothing of nearness.

    Args:
        num_classes: the number of outputs.
        hidden: the width of each layer between input and output.

    >>> from jaxconv.explain import summarize
    >>> summarize(mlp(), (28, 28, 1)).params
    118282
    """
    between = [part for width in hidden for part in (Dense(width), relu)]
    return serial(flatten, *between, Dense(num_classes))


@register_model("vgg6_bn", input_shape=(28, 28, 1), batch_norm=True, dropout=0.3)
@register_model(input_shape=(32, 32, 3))
@makes_layer
@named_errors
def vgg6(num_classes: int = 10, *, batch_norm: bool = False, dropout: float = 0.0, impl: str = "auto") -> Layer:
    """Six 3×3 convolutions, a pooling after each second, and one dense layer.

    The benchmark's network, and no paper's: the stages of VGG (Simonyan and Zisserman, 2014,
    https://arxiv.org/abs/1409.1556), of 32, 64 and 128 channels.

    Args:
        num_classes: the number of outputs.
        batch_norm: normalise what each convolution makes; the norm's bias is then the convolution's too.
        dropout: the fraction dropped before the dense layer.
        impl: the convolutions' lowering.

    Raises:
        InputError: a batch_norm that is not True or False, or a dropout that is no fraction.

    >>> from jaxconv.explain import summarize
    >>> summarize(vgg6(), (32, 32, 3)).params, summarize(vgg6(batch_norm=True), (28, 28, 1)).params
    (307498, 298410)
    """
    checks.boolean("batch_norm", batch_norm)

    def stage(features: int) -> list[Any]:
        conv = Conv(features, (3, 3), padding="SAME", use_bias=not batch_norm, impl=impl)
        one = [conv, BatchNorm(), relu] if batch_norm else [conv, relu]
        return [*one, *one, MaxPool(2)]

    before = [Dropout(dropout)] if dropout else []
    return serial(*stage(32), *stage(64), *stage(128), flatten, *before, Dense(num_classes))


@register_model(input_shape=(32, 32, 3))
@makes_layer
def convnetjs(num_classes: int = 10, *, impl: str = "auto") -> Layer:
    """Three 5×5 convolutions of 16, 20 and 20 filters, a pooling after each: 22,466 parameters on a 32×32×3 image.

    The demo trains it with images that are shifted by up to 2 pixels and mirrored
    (:mod:`jaxconv.data.augment`: ``shift(2)``, ``flip()``).

    Args:
        num_classes: the number of outputs.
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
        *(flatten, Dense(num_classes)),
    )


# Half as wide, and for trainings too short for dropout: for a CPU.
@register_model("all_cnn_c_48", input_shape=(32, 32, 3), width=48, dropout=False)
@register_model(input_shape=(32, 32, 3))
@makes_layer
@named_errors
def all_cnn_c(num_classes: int = 10, *, width: int = 96, dropout: bool = True, impl: str = "auto") -> Layer:
    """All-CNN-C: convolutions with stride 2 make the image smaller.

    Two 3×3 convolutions of 96 filters and a third with stride 2, then the same of 192; then one of 192 that pads
    nothing, a 1×1 of 192 and a 1×1 with a filter a class, whose mean over all places is the class's logit. So images
    of any size from 9 pixels a side will do.

    As in the paper, a fifth of the image's values are dropped in training and half of what each convolution with stride
    2 makes. Its table has a relu after the last convolution too, which is left out: a logit below 0 could not learn.

    Args:
        num_classes: the number of outputs.
        width: of the first three convolutions; the later ones have twice as many filters. The paper's is 96.
        dropout: the paper's.
        impl: the convolutions' lowering.

    Raises:
        InputError: a width that is no whole number of at least 1, or a dropout that is not True or False.

    Source: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806, tables 1 and 2; lecture row 001-13.

    >>> from jaxconv.explain import summarize
    >>> table = summarize(all_cnn_c(), (32, 32, 3))
    >>> table.params, sorted({row.kind for row in table.rows})
    (1369738, ['conv', 'dropout', 'global_avg_pool', 'relu'])
    """
    checks.at_least(1, width=width)
    checks.boolean("dropout", dropout)
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
        *(conv(num_classes, kernel_size=1, padding=0), global_avg_pool),
    )
