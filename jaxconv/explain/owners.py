"""Whose kernel it is: the layers that have one, and the layers whose channels are the filters of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import walk

KEEP_CHANNELS = {
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "squareplus"),
    *("tanh", "hard_tanh", "sigmoid", "hard_sigmoid", "hard_silu", "soft_sign", "log_sigmoid"),
    *("bn", "gn", "in", "ln", "rms", "max_pool", "avg_pool", "lp_pool", "dropout", "spatial_dropout"),
}


def kernel_of(model: Layer, params: Any, state: Any, in_shape: tuple[int, ...]) -> dict[str, str]:
    """For each layer, the layer with a kernel whose filters its channels are; nothing is computed.

    >>> from jaxconv import models
    >>> model = models.resnet(8)
    >>> params, state = jax.eval_shape(lambda key: model.init(key, (8, 8, 3)), jax.random.key(0))
    >>> found = kernel_of(model, params, state, (8, 8, 3))
    >>> found["relu1"], found["res1/body/relu1"], found.get("relu2")
    ('conv1', 'res1/body/conv1', None)
    """
    found: dict[str, str] = {}
    made: dict[int, tuple[jax.Array, str]] = {}  # by the very array: what is not its maker's any more is not in it
    parts = with_kernel(model, params)

    def follow(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if path in parts:
            found[path] = path
        elif id(x) in made and (y is x or layer.kind in KEEP_CHANNELS):
            found[path] = made[id(x)][1]
        if path in found:
            made[id(y)] = y, found[path]
        return y

    x = jax.ShapeDtypeStruct((1, *in_shape), jnp.float32)
    jax.eval_shape(lambda params, state, x: walk(model, params, state, x, follow), params, state, x)
    return found


def with_kernel(model: Layer, params: Any) -> dict[str, jax.Array]:
    """The kernel of every layer that has one, by the layer's name, in the order of the layers.

    >>> from jaxconv import models
    >>> params, _ = models.mlp().init(jax.random.key(0), (2, 2, 1))
    >>> {name: kernel.shape for name, kernel in with_kernel(models.mlp(), params).items()}
    {'dense1': (4, 128), 'dense2': (128, 128), 'dense3': (128, 10)}
    """
    found: dict[str, jax.Array] = {}

    def collect(path: str, layer: Layer, params: Any) -> None:
        for name, part in layer.parts:
            collect(f"{path}/{name}" if path else name, part, params.get(name, {}))
        if not layer.parts and "kernel" in params:
            found[path or layer.kind] = params["kernel"]

    collect("", as_layer(model), params)
    return found
