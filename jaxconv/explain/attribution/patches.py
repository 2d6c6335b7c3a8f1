"""The parts of real images that excite a filter most."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.explain.attribution.feature_visualization import check_channels
from jaxconv.explain.batches import per_image
from jaxconv.explain.intermediates import check_images, check_layer, feature_maps
from jaxconv.explain.receptive_fields import field_of
from jaxconv.layers import Layer


class Patches(NamedTuple):
    """What :func:`nearest_patches` found, for each of K filters, the strongest first.

    Attributes:
        patches: what the filter saw there, ``(K, count, fh, fw, C)``, of the images' dtype; beyond a border zeros.
        index: of which image, ``(K, count)``.
        place: where in the layer's output, ``(K, count, ndim)``; of a layer without places ndim is 0.
        activation: the filter's answer there, ``(K, count)``.
    """

    patches: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # of a tuple's own index nobody has need here
    place: np.ndarray
    activation: np.ndarray


def nearest_patches(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    layer: str,
    channels: Sequence[int] | None = None,
    count: int = 9,
    batch_size: int = 256,
) -> Patches:
    """For each filter of a layer the images that excite it most, cropped to what it saw there.

    Of every image the filter's strongest place counts, so that an image gives one patch at most; of equal answers the
    earlier image and the first place come first. A patch is the receptive field of that place; where it is not known
    (:func:`jaxconv.explain.field_of`) it is the whole image.

    Args:
        model, params, state: the network.
        images: a data set, ``(N, H, W, C)``, bytes or floats.
        layer: whose filters.
        channels: which; by default all.
        count: how many patches of each.
        batch_size: images at a time.

    Returns:
        :class:`Patches`, in numpy's memory.

    Raises:
        InputError: an unknown layer, a channel that it has not, no image, or fewer than ``count``.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, figure 2. Lecture rows 003-09, 004-04.

    >>> from jaxconv import Conv, serial
    >>> params = {"conv1": {"kernel": jnp.ones((2, 2, 1, 1)), "bias": jnp.zeros(1)}}
    >>> images = np.zeros((3, 4, 4, 1), np.float32)
    >>> images[1, 2:, 2:], images[2, 0, 0] = 1, 1
    >>> found = nearest_patches(serial(Conv(1, 2)), params, {}, images, layer="conv1", count=2)
    >>> found.index.tolist(), found.place.tolist(), found.patches[0, 0, :, :, 0].tolist()
    ([[1, 2]], [[[2, 2], [0, 0]]], [[1.0, 1.0], [1.0, 1.0]])
    """
    check_layer("nearest_patches", model, layer)
    checks.whole("nearest_patches", 1, count=count)
    images = np.asarray(images)
    check_images("nearest_patches", images[:1])
    if count > len(images):
        raise InputError(f"nearest_patches: count={count} of {len(images)} images: ask for fewer, or give more images")
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    y = jax.eval_shape(lambda x: feature_maps(model, params, state, x, layers=(layer,))[layer], one)
    numbers = check_channels("nearest_patches", layer, channels, y.shape[-1])

    def strongest_places(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = feature_maps(model, params, state, x, layers=(layer,))[layer]
        y = y.reshape(len(y), -1, y.shape[-1])[..., jnp.asarray(numbers)]
        return y.max(axis=1), y.argmax(axis=1)

    answers, places = per_image("nearest_patches", strongest_places, images, batch_size)
    index = np.argsort(-answers, axis=0, kind="stable")[:count].T
    activation = np.take_along_axis(answers.T, index, axis=1)
    sizes = y.shape[1:-1]
    flat = np.take_along_axis(places.T, index, axis=1)
    place = np.stack(np.unravel_index(flat, sizes), axis=-1) if sizes else np.zeros((*flat.shape, 0), int)

    field = field_of(model, images.shape[1:], layer)
    boxes = [[None if field is None else field.box(tuple(map(int, p))) for p in row] for row in place]
    patches = [[crop(images[n], box) for n, box in zip(*pair, strict=True)] for pair in zip(index, boxes, strict=True)]
    return Patches(np.asarray(patches), index, place, activation)


def crop(image: np.ndarray, box: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """The pixels of a box, from and up to, one pair a dimension; beyond the image's border zeros.

    >>> crop(np.arange(4).reshape(2, 2, 1), ((-1, 1), (0, 2)))[..., 0].tolist()
    [[0, 0], [0, 1]]
    """
    if box is None:
        return image
    inside = tuple(slice(max(low, 0), max(high, 0)) for low, high in box)
    edges = [(max(0, -low), max(0, high - n)) for (low, high), n in zip(box, image.shape, strict=False)]
    # A box that lies beyond the border altogether is cut to its size from nothing but zeros.
    widths = [(min(low, b - a), min(high, b - a)) for (low, high), (a, b) in zip(edges, box, strict=True)]
    return np.pad(image[inside], (*widths, (0, 0)))
