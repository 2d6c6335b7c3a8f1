"""Traverse the layers of a model: intercept activations, replace layers, look up kernels by path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import error_context
from jaxconv.layers.base import Layer, Tree, as_layer
from jaxconv.layers.combinators import check_names, is_composite, with_children

Interceptor = Callable[[str, Layer, jax.Array, Callable[[jax.Array], jax.Array]], jax.Array]


def intercept(model: Layer, params: Tree, state: Tree, x: jax.Array, interceptor: Interceptor) -> jax.Array:
    """Compute ``model.apply(params, state, x)[0]`` at inference, with every layer applied by ``interceptor``.

    Args:
        model: a Layer.
        params, state: variables of the model.
        x: a batch.
        interceptor: ``(path, layer, x, apply) -> y``, called for every layer without children and, after their
            children, for ``residual`` and ``parallel``. ``apply(x)`` is the output of the layer: return it to observe
            the network, or another array to replace the activation.

    >>> from jaxconv import Conv, flatten, relu, serial
    >>> model = serial(Conv(2, 3), relu, flatten)
    >>> params, state = model.init(jax.random.key(0), (4, 4, 1))
    >>> def print_shape(path, layer, x, apply):
    ...     y = apply(x)
    ...     print(path, y.shape)
    ...     return y
    >>> y = intercept(model, params, state, jax.numpy.ones((1, 4, 4, 1)), print_shape)
    conv1 (1, 2, 2, 2)
    relu1 (1, 2, 2, 2)
    flatten1 (1, 8)
    """
    return _walk("", as_layer(model), params, state, x, interceptor)


def _walk(path: str, layer: Layer, params: Any, state: Any, x: jax.Array, visit: Interceptor) -> jax.Array:
    def walk_child(name: str, child: Layer, x: jax.Array) -> jax.Array:
        child_path = f"{path}/{name}" if path else name
        with error_context(name):
            return _walk(child_path, as_layer(child), params.get(name, {}), state.get(name, {}), x, visit)

    if not layer.children:
        return visit(path or layer.kind, layer, x, lambda x: layer.apply(params, state, x)[0])
    check_names(layer.children, params, state)
    if (join := layer.merge) is not None:
        branches = dict(layer.children)

        def apply_branches(x: jax.Array) -> jax.Array:
            return join(x, {name: walk_child(name, branch, x) for name, branch in branches.items()})

        return visit(path or layer.kind, layer, x, apply_branches)
    for name, child in layer.children:
        x = walk_child(name, child, x)
    return x


def named_layers(model: Layer) -> dict[str, Layer]:
    """Return the layers that :func:`intercept` visits, keyed by path, in the order of execution.

    >>> from jaxconv import Conv, relu, residual, serial
    >>> list(named_layers(serial(Conv(2, 3), residual(Conv(2, 3, padding="SAME")), relu)))
    ['conv1', 'res1/body/conv1', 'res1/shortcut', 'res1', 'relu1']
    """
    by_path: dict[str, Layer] = {}

    def collect(path: str, layer: Layer) -> None:
        for name, child in layer.children:
            collect(f"{path}/{name}" if path else name, child)
        if not layer.children or layer.merge is not None:
            by_path[path or layer.kind] = layer

    collect("", as_layer(model))
    return by_path


def map_layers(model: Layer, function: Callable[[str, Layer], Layer]) -> Layer:
    """Return the model with every layer that has no children replaced by ``function(path, layer)``.

    A user's own layer counts as one without children, since its ``apply`` may do more than apply them.

    >>> from jaxconv import Conv, relu, residual, serial
    >>> model = serial(Conv(2, 3), residual(relu), relu)
    >>> paths = []
    >>> list(named_layers(map_layers(model, lambda path, layer: paths.append(path) or layer))), paths
    (['conv1', 'res1/body/relu1', 'res1/shortcut', 'res1', 'relu1'], ['conv1', 'res1/body/relu1', 'res1/shortcut', \
'relu1'])
    """

    def mapped(path: str, layer: Layer) -> Layer:
        if not is_composite(layer):
            return function(path, layer)
        return with_children(
            layer, tuple((name, mapped(f"{path}/{name}".lstrip("/"), child)) for name, child in layer.children)
        )

    return mapped("", as_layer(model))


def get_subtree(tree: Tree, path: str) -> Any:
    """Return the params or state of the layer at a path; an empty dict if it has none.

    >>> get_subtree({"res1": {"body": {"conv1": {"bias": 3}}}}, "res1/body/conv1"), get_subtree({}, "relu1")
    ({'bias': 3}, {})
    """
    for name in path.split("/"):
        tree = tree.get(name, {})
    return tree


def source_kernel_layer(model: Layer, params: Any, state: Any, input_shape: tuple[int, ...]) -> dict[str, str]:
    """Map each layer to the layer with a kernel whose filters produce its channels, by abstract evaluation.

    >>> from jaxconv import models
    >>> model = models.resnet(8)
    >>> params, state = jax.eval_shape(lambda key: model.init(key, (8, 8, 3)), jax.random.key(0))
    >>> sources = source_kernel_layer(model, params, state, (8, 8, 3))
    >>> sources["relu1"], sources["res1/body/relu1"], sources.get("relu2")
    ('conv1', 'res1/body/conv1', None)
    """
    sources: dict[str, str] = {}
    source_of: dict[int, tuple[jax.Array, str]] = {}  # keyed by id(array); the array is kept so its id is not reused
    kernels = kernels_by_layer(model, params)

    def follow(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if path in kernels:
            sources[path] = path
        elif id(x) in source_of and (y is x or layer.facts.keeps_channels):
            sources[path] = source_of[id(x)][1]
        if path in sources:
            source_of[id(y)] = y, sources[path]
        return y

    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(lambda params, state, x: intercept(model, params, state, x, follow), params, state, x)
    return sources


def kernels_by_layer(model: Layer, params: Any) -> dict[str, jax.Array]:
    """Return the kernel of every layer that has one, keyed by path, in the order of the layers.

    >>> from jaxconv import models
    >>> params, _ = models.mlp().init(jax.random.key(0), (2, 2, 1))
    >>> {name: kernel.shape for name, kernel in kernels_by_layer(models.mlp(), params).items()}
    {'dense1': (4, 128), 'dense2': (128, 128), 'dense3': (128, 10)}
    """
    kernels: dict[str, jax.Array] = {}

    def collect(path: str, layer: Layer, params: Any) -> None:
        for name, child in layer.children:
            collect(f"{path}/{name}" if path else name, child, params.get(name, {}))
        if not layer.children and "kernel" in params:
            kernels[path or layer.kind] = params["kernel"]

    collect("", as_layer(model), params)
    return kernels
