"""Networks that have a name. Each is a function that returns a Layer, and reads like its diagram."""

from jaxconv.models.autoencoders import decoder, encoder
from jaxconv.models.lenets import lenet5, lenet5_1998
from jaxconv.models.registry import MODELS, Model, find
from jaxconv.models.resnets import resnet
from jaxconv.models.simple_networks import all_conv, convnetjs, mlp, mnist_cnn, small_cnn, vgg6

__all__ = [
    "MODELS",
    "Model",
    "all_conv",
    "convnetjs",
    "decoder",
    "encoder",
    "find",
    "lenet5",
    "lenet5_1998",
    "mlp",
    "mnist_cnn",
    "resnet",
    "small_cnn",
    "vgg6",
]
