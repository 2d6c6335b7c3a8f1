"""Model zoo: functions that return a Layer, registered by name."""

from jaxconv.models.autoencoders import decoder, encoder
from jaxconv.models.registry import ModelSpec, create_model, get_model, list_models, register_model
from jaxconv.models.simple_networks import all_cnn_c, convnetjs, mlp, mnist_cnn, small_cnn, vgg6

# isort: split
from jaxconv.models.lenets import lenet5, lenet5_1998

# isort: split
from jaxconv.models.resnets import resnet

__all__ = [
    "ModelSpec",
    "all_cnn_c",
    "convnetjs",
    "create_model",
    "decoder",
    "encoder",
    "get_model",
    "lenet5",
    "lenet5_1998",
    "list_models",
    "mlp",
    "mnist_cnn",
    "register_model",
    "resnet",
    "small_cnn",
    "vgg6",
]
