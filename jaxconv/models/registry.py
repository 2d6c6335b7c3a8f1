"""Registry of models by name. Models are registered by a decorator at their definition."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxconv import checks
from jaxconv.layers import Layer


class ModelSpec(NamedTuple):
    """A registered model.

    Attributes:
        name: name in the registry.
        create: ``(*, num_classes=10, **options) -> Layer``, called with keyword arguments only.
        input_shape: ``(H, W, C)`` of the smallest image that the model is designed for.
        description: first line of the docstring.
    """

    name: str
    create: Callable[..., Layer]
    input_shape: tuple[int, int, int]
    description: str


Create = Callable[..., Layer]
_SPECS: dict[str, ModelSpec] = {}


def register_model(
    name: str | None = None, *, input_shape: tuple[int, int, int], **options: Any
) -> Callable[[Create], Create]:
    """Register the model that the decorated function creates.

    Stack the decorator, or call it in a loop, for variants that differ in options.

    Args:
        name: name of the model; by default the name of the function.
        input_shape: ``(H, W, C)`` of the smallest image that the model is designed for.
        options: keyword arguments of the function that this model fixes.

    Raises:
        ValueError: if the name is registered already.

    >>> from jaxconv.models import mlp
    >>> @register_model("tiny_mlp", input_shape=(8, 8, 1), hidden=(4,))
    ... def own_mlp(num_classes=10, *, hidden=(128, 128)):
    ...     '''Flatten, then dense layers.'''
    ...     return mlp(num_classes, hidden=hidden)
    >>> get_model("tiny_mlp").description, create_model("tiny_mlp").children[1][1].kind
    ('Flatten, then dense layers.', 'dense')
    >>> del _SPECS["tiny_mlp"]
    """

    def decorate(function: Create) -> Create:
        key = name or function.__name__
        if key in _SPECS:
            raise ValueError(f"model {key!r} is registered twice")
        create = functools.partial(function, **options) if options else function
        _SPECS[key] = ModelSpec(key, create, input_shape, (inspect.getdoc(function) or "").partition("\n")[0])
        return function

    return decorate


def list_models() -> list[str]:
    """Return the names of all registered models.

    >>> list_models()[:3]
    ['small_cnn', 'mnist_cnn', 'mlp']
    """
    return list(_SPECS)


def get_model(name: str) -> ModelSpec:
    """Look up a model by name.

    Raises:
        InputError: if no model has this name; the message suggests the closest one.

    >>> get_model("mnist_cnn").input_shape
    (28, 28, 1)
    >>> get_model("mnist")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown model 'mnist': did you mean 'mnist_cnn'? Known: small_cnn, mnist_cnn, \
mlp, vgg6, vgg6_bn, convnetjs, all_cnn_c, all_cnn_c_48, lenet5, lenet5_1998, resnet20, resnet32, resnet44, resnet56, \
resnet110
    """
    checks.one_of("model", name, _SPECS)
    return _SPECS[name]


def create_model(name: str, num_classes: int = 10, **options: Any) -> Layer:
    """Create a model by name.

    Args:
        name: one of :func:`list_models`.
        num_classes: number of outputs.
        options: other arguments of the model's function, such as ``impl``.

    Raises:
        InputError: if no model has this name, or the model has no such option.

    >>> create_model("mlp", 3, hidden=(8,)).children[-1]
    ('dense2', <Layer dense>)
    """
    return get_model(name).create(num_classes=num_classes, **options)
