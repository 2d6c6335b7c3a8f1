"""Sequential networks: an MLP, small convolutional networks, a VGG and the All-CNN."""

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
    """Three convolutions, two poolings and one dense layer: 30,634 parameters on an 8×8×1 image.

    Args:
        num_classes: number of outputs.
        impl: lowering of the convolutions.

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

    Kernels are initialized by Glorot uniform, the Keras default, since the lecture uses Keras.

    Args:
        num_classes: number of outputs.
        impl: lowering of the convolutions.

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
    """Flatten, then dense layers with relu in between: no convolution, and images of any size.

    Args:
        num_classes: number of outputs.
        hidden: widths of the hidden layers.

    >>> from jaxconv.explain import summarize
    >>> summarize(mlp(), (28, 28, 1)).params
    118282
    """
    hidden_layers = [layer for width in hidden for layer in (Dense(width), relu)]
    return serial(flatten, *hidden_layers, Dense(num_classes))


@register_model("vgg6_bn", input_shape=(28, 28, 1), batch_norm=True, dropout=0.3)
@register_model(input_shape=(32, 32, 3))
@makes_layer
@named_errors
def vgg6(num_classes: int = 10, *, batch_norm: bool = False, dropout: float = 0.0, impl: str = "auto") -> Layer:
    """Six 3×3 convolutions, a pooling after every second one, and one dense layer.

    This is the benchmark network, not from a paper: three stages as in VGG (Simonyan and Zisserman, 2014,
    https://arxiv.org/abs/1409.1556), with 32, 64 and 128 channels.

    Args:
        num_classes: number of outputs.
        batch_norm: add a batch norm after each convolution, which then has no bias.
        dropout: dropout rate before the dense layer.
        impl: lowering of the convolutions.

    Raises:
        InputError: if ``batch_norm`` is not a bool, or ``dropout`` is not in [0, 1).

    >>> from jaxconv.explain import summarize
    >>> summarize(vgg6(), (32, 32, 3)).params, summarize(vgg6(batch_norm=True), (28, 28, 1)).params
    (307498, 298410)
    """
    checks.boolean("batch_norm", batch_norm)

    def stage(features: int) -> list[Any]:
        conv = Conv(features, (3, 3), padding="SAME", use_bias=not batch_norm, impl=impl)
        block = [conv, BatchNorm(), relu] if batch_norm else [conv, relu]
        return [*block, *block, MaxPool(2)]

    dropout_layers = [Dropout(dropout)] if dropout else []
    return serial(*stage(32), *stage(64), *stage(128), flatten, *dropout_layers, Dense(num_classes))


@register_model(input_shape=(32, 32, 3))
@makes_layer
def convnetjs(num_classes: int = 10, *, impl: str = "auto") -> Layer:
    """Three 5×5 convolutions of 16, 20 and 20 filters, a pooling after each: 22,466 parameters on a 32×32×3 image.

    The demo trains it with data augmentation: translations by up to 2 pixels and horizontal flips
    (:mod:`jaxconv.data.augment`: ``shift(2)``, ``flip()``).

    Args:
        num_classes: number of outputs.
        impl: lowering of the convolutions.

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


# Half the width and no dropout, for short training on a CPU.
@register_model("all_cnn_c_48", input_shape=(32, 32, 3), width=48, dropout=False)
@register_model(input_shape=(32, 32, 3))
@makes_layer
@named_errors
def all_cnn_c(num_classes: int = 10, *, width: int = 96, dropout: bool = True, impl: str = "auto") -> Layer:
    """All-CNN-C: convolutions with stride 2 instead of pooling.

    Two 3×3 convolutions of 96 filters and a third with stride 2; the same with 192 filters; a 3×3 convolution of 192
    filters without padding; a 1×1 convolution of 192 filters; and a 1×1 convolution with one filter per class, whose
    mean over all positions is the logit of the class. Images of at least 9×9 pixels are accepted.

    As in the paper, dropout is applied to the image (rate 0.2) and after each convolution with stride 2 (rate 0.5). The
    table in the paper lists a relu after the last convolution, which is left out: a negative logit would have no
    gradient.

    Args:
        num_classes: number of outputs.
        width: number of filters of the first three convolutions, 96 in the paper; later ones have ``2·width``.
        dropout: apply the dropout of the paper.
        impl: lowering of the convolutions.

    Raises:
        InputError: if ``width`` is not an int >= 1, or ``dropout`` is not a bool.

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

    def downsample(features: int) -> list[Any]:
        return [conv(features), relu, conv(features), relu, conv(features, stride=2), relu, *drop(0.5)]

    return serial(
        *drop(0.2),
        *downsample(width),
        *downsample(2 * width),
        *(conv(2 * width, padding=0), relu, conv(2 * width, kernel_size=1, padding=0), relu),
        *(conv(num_classes, kernel_size=1, padding=0), global_avg_pool),
    )
