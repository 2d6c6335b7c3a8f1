"""The models by name, and the smallest image that each is meant for."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxconv import checks
from jaxconv.layers import Layer
from jaxconv.models.lenets import lenet5, lenet5_1998
from jaxconv.models.resnets import DEPTHS, resnet
from jaxconv.models.simple_networks import all_conv, convnetjs, mlp, mnist_cnn, small_cnn, vgg6


class Model(NamedTuple):
    """A network's function and the least image, ``(H, W, C)``, that it is meant for."""

    make: Callable[..., Layer]
    in_shape: tuple[int, int, int]


MODELS: dict[str, Model] = {
    "small_cnn": Model(small_cnn, (8, 8, 1)),
    "lenet5": Model(lenet5, (32, 32, 1)),
    "lenet5_1998": Model(lenet5_1998, (32, 32, 1)),
    "mnist_cnn": Model(mnist_cnn, (28, 28, 1)),
    "mlp": Model(mlp, (8, 8, 1)),
    "vgg6": Model(vgg6, (32, 32, 3)),
    "vgg6_bn": Model(partial(vgg6, batch_norm=True, dropout=0.3), (28, 28, 1)),
    "convnetjs": Model(convnetjs, (32, 32, 3)),
    "all_conv": Model(all_conv, (32, 32, 3)),
    # Half as wide, and for trainings too short for dropout: for a CPU.
    "all_conv48": Model(partial(all_conv, width=48, dropout=False), (32, 32, 3)),
    **{f"resnet{depth}": Model(partial(resnet, depth), (32, 32, 3)) for depth in DEPTHS},
}


def find(name: str) -> Model:
    """A model by its name.

    >>> find("mnist_cnn").in_shape
    (28, 28, 1)
    >>> find("mnist")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown model 'mnist': did you mean 'mnist_cnn'? Known: small_cnn, lenet5, \
lenet5_1998, mnist_cnn, mlp, vgg6, vgg6_bn, convnetjs, all_conv, all_conv48, resnet20, resnet32, resnet44, resnet56, \
resnet110
    """
    checks.one_of("model", name, MODELS)
    return MODELS[name]
