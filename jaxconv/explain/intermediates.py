"""Intermediate outputs: run a network over images, batch by batch, and keep the output of every layer by name."""

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
        check_layer(model, name)
    found: dict[str, jax.Array] = {}

    def keep(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        found[path] = y = apply(x)
        return y

    intercept(model, params, state, check_images(images), keep)
    return {name: found[name] for name in wanted}


def layer_names(model: Layer) -> tuple[str, ...]:
    """The names of a model's layers, in the order in which they are computed.

    >>> from jaxconv import models
    >>> layer_names(models.mlp())
    ('flatten1', 'dense1', 'relu1', 'dense2', 'relu2', 'dense3')
    """
    return tuple(named_layers(model))


def check_layer(model: Layer, name: str) -> None:
    """Refuse the name of a layer that the model has not, with those that it has."""
    checks.one_of("layer", name, layer_names(model))


def check_images(images: Any) -> jax.Array:
    """A batch of images as numbers: bytes become 0 to 1.

    Raises:
        InputError: there is none, or it is one image without the axis of a batch.
    """
    x = to_float(images)
    if x.ndim < 2 or x.shape[0] == 0:
        raise InputError(f"images {x.shape} hold none: give at least one, (N, H, W, C)")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"images of {x.dtype}: give bytes (uint8) or floats")
    return x


def each_batch(
    f: Callable[[jax.Array, jax.Array], Any], images: Any, batch_size: int = 256
) -> Iterator[tuple[Any, int]]:
    """``f(x, mask)`` of every batch of the images, and how many of its images count; f is compiled once.

    Args:
        f: of a batch as floats, and its mask: the last batch is filled up with images that do not count.
        images: ``(N, …)``, in memory.
        batch_size: images at a time.

    Raises:
        InputError: no image, or no whole batch size.
    """
    checks.at_least(1, batch_size=batch_size)
    check_images(images[:1])
    images, size = np.asarray(images), min(batch_size, len(images))
    program = jax.jit(f, compiler_options=compiler_options())
    for batch in iterate_batches(images, np.zeros(len(images), np.int32), size):
        yield program(to_float(batch.image), batch.mask), int(np.asarray(batch.mask).sum())


def per_image(f: Callable[[jax.Array], Any], images: Any, batch_size: int = 256) -> Any:
    """``f(images)`` where f gives arrays with a row for each image: computed by batches, in numpy's memory.

    >>> per_image(lambda x: x.sum(axis=(1, 2, 3)), np.full((5, 2, 2, 1), 255, np.uint8), batch_size=2)
    array([4., 4., 4., 4., 4.], dtype=float32)
    """
    found = [
        jax.tree.map(lambda y, count=count: np.asarray(y)[:count], ys)
        for ys, count in each_batch(lambda x, mask: f(x), images, batch_size)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def check_labelled(
    model: Layer, params: Any, state: Any, images: Any, labels: Any, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in numpy's memory; refuse those that do not go together, or with the network."""
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
