"""Intermediate outputs: run a network over images in batches and collect the output of every layer by name."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import intercept, named_layers
from jaxconv.runtime import compiler_options
from jaxconv.train import iterate_batches, to_float
from jaxconv.train.argument_checks import check_batchable, check_labels


@named_errors
def feature_maps(
    model: Layer, params: Any, state: Any, images: Any, *, layers: tuple[str, ...] | None = None
) -> dict[str, jax.Array]:
    """Return the output of every layer, computed as at inference.

    A pure function: under ``jax.jit`` unused outputs are not computed, and ``jax.grad`` differentiates through it.

    Args:
        model: a Layer.
        params, state: those of the model.
        images: ``(N, H, W, C)``; uint8 images are scaled to [0, 1], as in training.
        layers: names of the layers to return; by default all, in the order in which they are computed. (``jit``
            returns dicts sorted by name: :func:`layer_names` has the order.)

    Returns:
        Dict of arrays ``(N, …)`` by layer name, such as ``conv1`` or ``res1/body/conv2``. The name of a residual block
        itself, ``res1``, holds the sum of its body and shortcut.

    Raises:
        InputError: if a layer name is unknown or ``images`` is empty.

    Lecture rows 002-05, 003-24, 004-15.

    >>> from jaxconv import models
    >>> model = models.small_cnn()
    >>> params, state = model.init(jax.random.key(0), (8, 8, 1))
    >>> maps = feature_maps(model, params, state, jnp.ones((2, 8, 8, 1)), layers=("conv1", "max_pool1"))
    >>> {name: y.shape for name, y in maps.items()}
    {'conv1': (2, 8, 8, 32), 'max_pool1': (2, 4, 4, 32)}
    """
    names = layer_names(model) if layers is None else tuple(layers)
    for name in names:
        check_layer(model, name)
    outputs: dict[str, jax.Array] = {}

    def record(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        outputs[path] = y = apply(x)
        return y

    intercept(model, params, state, check_images(images), record)
    return {name: outputs[name] for name in names}


def layer_names(model: Layer) -> tuple[str, ...]:
    """Return the names of the layers, in the order in which they are computed.

    >>> from jaxconv import models
    >>> layer_names(models.mlp())
    ('flatten1', 'dense1', 'relu1', 'dense2', 'relu2', 'dense3')
    """
    return tuple(named_layers(model))


def check_layer(model: Layer, name: str) -> None:
    """Raise InputError for an unknown layer name; the message lists the valid ones."""
    checks.one_of("layer", name, layer_names(model))


def check_images(images: Any) -> jax.Array:
    """Return a batch of images as floats; uint8 is scaled to [0, 1].

    Raises:
        InputError: if the batch is empty, the batch axis is missing, or the dtype is neither uint8 nor floating.
    """
    x = to_float(images)
    if x.ndim < 2 or x.shape[0] == 0:
        raise InputError(f"images must be (N, H, W, C) with N >= 1, got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"images must be uint8 or floats, got {x.dtype}")
    return x


def map_batches(
    f: Callable[[jax.Array, jax.Array], Any], images: Any, batch_size: int = 256
) -> Iterator[tuple[Any, int]]:
    """Yield ``f(x, mask)`` and the number of valid images for every batch; f is compiled once.

    Args:
        f: function of a batch of floats and its mask ``(N,)``, which is False for the images that pad the last batch.
        images: ``(N, …)``, in memory.
        batch_size: number of images per batch.

    Raises:
        InputError: if ``images`` is empty or ``batch_size`` is not an int of at least 1.
    """
    checks.at_least(1, batch_size=batch_size)
    check_images(images[:1])
    images, size = np.asarray(images), min(batch_size, len(images))
    compiled = jax.jit(f, compiler_options=compiler_options())
    for batch in iterate_batches(images, np.zeros(len(images), np.int32), size):
        yield compiled(to_float(batch.image), batch.mask), int(np.asarray(batch.mask).sum())


def per_image(f: Callable[[jax.Array], Any], images: Any, batch_size: int = 256) -> Any:
    """Return ``f(images)``, computed in batches as NumPy arrays; f returns arrays with a leading batch axis.

    >>> per_image(lambda x: x.sum(axis=(1, 2, 3)), np.full((5, 2, 2, 1), 255, np.uint8), batch_size=2)
    array([4., 4., 4., 4., 4.], dtype=float32)
    """
    results = [
        jax.tree.map(lambda y, count=count: np.asarray(y)[:count], ys)
        for ys, count in map_batches(lambda x, mask: f(x), images, batch_size)
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *results)


def check_labelled(
    model: Layer, params: Any, state: Any, images: Any, labels: Any, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as NumPy arrays.

    Raises:
        InputError: if ``images`` is empty or not ``(N, H, W, C)``, or the labels do not match the images or the model.
    """
    checks.at_least(1, batch_size=batch_size)
    images, labels = np.asarray(images), np.asarray(labels)
    if not len(images):
        check_images(images)
    if images.ndim != 4:
        raise InputError(f"images {images.shape} should be (N, H, W, C)")
    check_batchable(images, labels, batch_size)
    check_images(images[:1])
    check_labels(as_layer(model), params, state, images.shape[1:], labels)
    return images, labels
