"""What a network computes on the way: the output of every layer, by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, known
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers, walk
from jaxconv.train import to_float


def feature_maps(
    model: Layer, params: Any, state: Any, images: Any, *, layers: tuple[str, ...] | None = None
) -> dict[str, jax.Array]:
    """The output of every layer on the way from images to logits, as the network computes it in use.

    It is a pure function: under ``jax.jit`` what is not used is not computed, and ``jax.grad`` goes through it.

    Args:
        model: a Layer.
        params, state: its own.
        images: ``(N, H, W, C)``; bytes are taken as 0 to 1, as training does.
        layers: only these; by default all, in the order in which they are computed. (``jit`` returns dicts sorted by
            name: :func:`layer_names` has the order.)

    Returns:
        For each name, ``conv1`` or ``res1/body/conv2``, an array ``(N, …)``. A residual block's own name is its sum.

    Raises:
        InputError: a layer that the model has not, with those that it has; or no image.

    Lecture rows 002-05, 003-24, 004-15.

    >>> from jaxconv import models
    >>> model = models.small_cnn()
    >>> params, state = model.init(jax.random.key(0), (8, 8, 1))
    >>> maps = feature_maps(model, params, state, jnp.ones((2, 8, 8, 1)), layers=("conv1", "max_pool1"))
    >>> {name: y.shape for name, y in maps.items()}
    {'conv1': (2, 8, 8, 32), 'max_pool1': (2, 4, 4, 32)}
    """
    wanted = layer_names(model) if layers is None else tuple(layers)
    for name in wanted:
        check_layer("feature_maps", model, name)
    found: dict[str, jax.Array] = {}

    def keep(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        found[path] = y = apply(x)
        return y

    walk(model, params, state, check_images("feature_maps", images), keep)
    return {name: found[name] for name in wanted}


def layer_names(model: Layer) -> tuple[str, ...]:
    """The names of a model's layers, in the order in which they are computed.

    >>> from jaxconv import models
    >>> layer_names(models.mlp())
    ('flatten1', 'dense1', 'relu1', 'dense2', 'relu2', 'dense3')
    """
    return tuple(named_layers(model))


def check_layer(function: str, model: Layer, name: str) -> None:
    """Refuse the name of a layer that the model has not, with those that it has."""
    known("layer", name, layer_names(model), by=function)


def check_images(function: str, images: Any) -> jax.Array:
    """A batch of images as numbers: bytes become 0 to 1.

    Raises:
        InputError: there is none, or it is one image without the axis of a batch.
    """
    x = to_float(images)
    if x.ndim < 2 or x.shape[0] == 0:
        raise InputError(f"{function}: images {x.shape} hold none: give at least one, (N, H, W, C)")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{function}: images of {x.dtype}: give bytes (uint8) or floats")
    return x
