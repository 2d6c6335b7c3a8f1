"""Go through the parts of a model: intercept what passes between two layers, and find a channel's kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import error_context
from jaxconv.layers.base import Layer, Tree, as_layer
from jaxconv.layers.combinators import check_names, is_combined, with_parts

Interceptor = Callable[[str, Layer, jax.Array, Callable[[jax.Array], jax.Array]], jax.Array]


def intercept(model: Layer, params: Tree, state: Tree, x: jax.Array, interceptor: Interceptor) -> jax.Array:
    """``model.apply(params, state, x)[0]`` of a network in use, with every step of it taken by ``interceptor``.

    Args:
        model: a Layer.
        params, state: its own.
        x: a batch.
        interceptor: ``(path, layer, x, apply) -> y`` is called for every layer that has no parts, and for the layers
            whose parts see the same x (``residual``, ``parallel``), after these; ``apply(x)`` is what it computes.
            Return that to look on, or something else to step in.

    >>> from jaxconv import Conv, flatten, relu, serial
    >>> model = serial(Conv(2, 3), relu, flatten)
    >>> params, state = model.init(jax.random.key(0), (4, 4, 1))
    >>> def tell(path, layer, x, apply):
    ...     y = apply(x)
    ...     print(path, y.shape)
    ...     return y
    >>> y = intercept(model, params, state, jax.numpy.ones((1, 4, 4, 1)), tell)
    conv1 (1, 2, 2, 2)
    relu1 (1, 2, 2, 2)
    flatten1 (1, 8)
    """
    return _walk("", as_layer(model), params, state, x, interceptor)


def _walk(path: str, layer: Layer, params: Any, state: Any, x: jax.Array, visit: Interceptor) -> jax.Array:
    def part(name: str, below: Layer, x: jax.Array) -> jax.Array:
        inner = f"{path}/{name}" if path else name
        with error_context(name):
            return _walk(inner, as_layer(below), params.get(name, {}), state.get(name, {}), x, visit)

    if not layer.children:
        return visit(path or layer.kind, layer, x, lambda x: layer.apply(params, state, x)[0])
    check_names(layer.children, params, state)
    if (join := layer.merge) is not None:
        branches = dict(layer.children)
        together = lambda x: join(x, {name: part(name, branch, x) for name, branch in branches.items()})  # noqa: E731
        return visit(path or layer.kind, layer, x, together)
    for name, below in layer.children:
        x = part(name, below, x)
    return x


def named_layers(model: Layer) -> dict[str, Layer]:
    """Every layer that :func:`intercept` visits, by its path, in the order in which they are done.

    >>> from jaxconv import Conv, relu, residual, serial
    >>> list(named_layers(serial(Conv(2, 3), residual(Conv(2, 3, padding="SAME")), relu)))
    ['conv1', 'res1/body/conv1', 'res1/shortcut', 'res1', 'relu1']
    """
    found: dict[str, Layer] = {}

    def collect(path: str, layer: Layer) -> None:
        for name, part in layer.children:
            collect(f"{path}/{name}" if path else name, part)
        if not layer.children or layer.merge is not None:
            found[path or layer.kind] = layer

    collect("", as_layer(model))
    return found


def map_layers(model: Layer, function: Callable[[str, Layer], Layer]) -> Layer:
    """Return the model with every layer that has no parts replaced by ``function(path, layer)``.

    A layer of a user's own, which may do more than its parts, counts as one without parts.

    >>> from jaxconv import Conv, relu, residual, serial
    >>> model = serial(Conv(2, 3), residual(relu), relu)
    >>> seen = []
    >>> list(named_layers(map_layers(model, lambda path, layer: seen.append(path) or layer))), seen
    (['conv1', 'res1/body/relu1', 'res1/shortcut', 'res1', 'relu1'], ['conv1', 'res1/body/relu1', 'res1/shortcut', \
'relu1'])
    """

    def mapped(path: str, layer: Layer) -> Layer:
        if not is_combined(layer):
            return function(path, layer)
        return with_parts(
            layer, tuple((name, mapped(f"{path}/{name}".lstrip("/"), part)) for name, part in layer.children)
        )

    return mapped("", as_layer(model))


def get_subtree(tree: Tree, path: str) -> Any:
    """The share of params or state that belongs to a layer, by its path; an empty dict if it has none.

    >>> get_subtree({"res1": {"body": {"conv1": {"bias": 3}}}}, "res1/body/conv1"), get_subtree({}, "relu1")
    ({'bias': 3}, {})
    """
    for name in path.split("/"):
        tree = tree.get(name, {})
    return tree


def source_kernel_layer(model: Layer, params: Any, state: Any, input_shape: tuple[int, ...]) -> dict[str, str]:
    """For each layer, the layer with a kernel whose filters its channels are; nothing is computed.

    >>> from jaxconv import models
    >>> model = models.resnet(8)
    >>> params, state = jax.eval_shape(lambda key: model.init(key, (8, 8, 3)), jax.random.key(0))
    >>> found = source_kernel_layer(model, params, state, (8, 8, 3))
    >>> found["relu1"], found["res1/body/relu1"], found.get("relu2")
    ('conv1', 'res1/body/conv1', None)
    """
    found: dict[str, str] = {}
    made: dict[int, tuple[jax.Array, str]] = {}  # by the very array: what is not its maker's any more is not in it
    parts = kernels_by_layer(model, params)

    def follow(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if path in parts:
            found[path] = path
        elif id(x) in made and (y is x or layer.facts.keeps_channels):
            found[path] = made[id(x)][1]
        if path in found:
            made[id(y)] = y, found[path]
        return y

    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(lambda params, state, x: intercept(model, params, state, x, follow), params, state, x)
    return found


def kernels_by_layer(model: Layer, params: Any) -> dict[str, jax.Array]:
    """The kernel of every layer that has one, by the layer's name, in the order of the layers.

    >>> from jaxconv import models
    >>> params, _ = models.mlp().init(jax.random.key(0), (2, 2, 1))
    >>> {name: kernel.shape for name, kernel in kernels_by_layer(models.mlp(), params).items()}
    {'dense1': (4, 128), 'dense2': (128, 128), 'dense3': (128, 10)}
    """
    found: dict[str, jax.Array] = {}

    def collect(path: str, layer: Layer, params: Any) -> None:
        for name, part in layer.children:
            collect(f"{path}/{name}" if path else name, part, params.get(name, {}))
        if not layer.children and "kernel" in params:
            found[path or layer.kind] = params["kernel"]

    collect("", as_layer(model), params)
    return found
