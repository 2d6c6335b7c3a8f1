"""What every channel of a network does over a data set: how often it answers, and how it is spread."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError
from jaxconv.explain.batches import each_batch
from jaxconv.explain.intermediates import check_layer, feature_maps, layer_names
from jaxconv.explain.moments import Correlation, Moments, batch_moments, moments_of
from jaxconv.explain.owners import kernel_of
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers
from jaxconv.train.diagnostics import rectifiers

EDGES = {"tanh": (-1, 1), "hard_tanh": (-1, 1), "sigmoid": (0, 1), "hard_sigmoid": (0, 1)}


class Activity(NamedTuple):
    """What the channels of one layer do, an entry each.

    Attributes:
        live: ``(C,)``, the share of images in which it is anything but 0 somewhere.
        zeros: ``(C,)``, the share of its outputs that are exactly 0.
        mean, std: ``(C,)``, over images and places.
        saturated: ``(C,)``, the share of its outputs within 0.01 of the ends of its range; None but for
            tanh, sigmoid and their hard variants.
        places: how many outputs each channel has had, over all images.
        correlation: between the channels, where it was asked for.
    """

    live: np.ndarray
    zeros: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    saturated: np.ndarray | None
    places: int
    correlation: Correlation | None = None


class DeadFilter(NamedTuple):
    """A filter that answers to no image, or to nearly none.

    Attributes:
        layer: the rectifier that is 0, ``relu2``.
        channel: its number.
        live: the share of images that it answers to.
        kernel: the layer with the kernel whose filter it is, ``conv2``; None behind a sum or a concatenation.
    """

    layer: str
    channel: int
    live: float
    kernel: str | None


def activity(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    layers: Sequence[str] | None = None,
    correlate: Sequence[str] = (),
    batch_size: int = 256,
) -> dict[str, Activity]:
    """What every channel does over all images: gone through once, by one compiled program.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        layers: only these; by default all.
        correlate: of these, the correlation between channels too: ``C²`` numbers each.
        batch_size: images at a time.

    Returns:
        An :class:`Activity` for each layer, in the order in which they are computed. The last axis of an output is
        its channels.

    Raises:
        InputError: a layer that the model has not, or no image.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> images = np.array([[-1.0, 2.0], [-1.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    >>> found = activity(serial(relu), {}, {}, images)["relu1"]
    >>> found.live.tolist(), found.zeros.tolist(), found.mean.tolist(), found.std.tolist()
    ([0.0, 0.5], [1.0, 0.5], [0.0, 1.0], [0.0, 1.0])
    """
    return _activity("activity", model, params, state, images, layers, correlate, batch_size)


def dead_filters(
    model: Layer, params: Any, state: Any, images: Any, *, at_most: float = 0.0, batch_size: int = 256
) -> list[DeadFilter]:
    """The filters whose rectified output (relu, relu6) is 0 everywhere in all of the images.

    No gradient goes through a dead filter, so it stays dead: it was pushed there by too large a step, or began
    there. A lower learning rate (or a warmup), ``leaky_relu`` instead of ``relu``, batch norm before it, or another
    ``kernel_init`` are what helps; what is dead can be cut out without a change of the logits.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``: the more, the surer.
        at_most: report those too that answer to no more than this share of the images.
        batch_size: images at a time.

    Raises:
        InputError: a share that is none, or no image.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> dead_filters(serial(relu), {}, {}, np.array([[[[-1.0, 2.0]]]], np.float32))
    [DeadFilter(layer='relu1', channel=0, live=0.0, kernel=None)]
    """
    if not 0 <= at_most < 1:
        raise InputError(f"dead_filters: at_most={at_most!r} should be a share of the images, from 0 to below 1")
    layers = rectifiers(model)
    found = _activity("dead_filters", model, params, state, images, layers, (), batch_size)
    kernels = kernel_of(model, params, state, np.shape(images)[1:])
    return [
        DeadFilter(name, int(channel), float(each.live[channel]), kernels.get(name))
        for name, each in found.items()
        for channel in np.flatnonzero(each.live <= at_most)
    ]


def saturation(model: Layer, params: Any, state: Any, images: Any, *, batch_size: int = 256) -> dict[str, float]:
    """The share of outputs where the slope is nearly 0: ``|tanh| > 0.99``, a sigmoid below 0.01 or above 0.99.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        batch_size: images at a time.

    Returns:
        A share for each layer that is tanh, sigmoid, hard_tanh or hard_sigmoid.

    Raises:
        InputError: no image.

    Source: Glorot and Bengio, 2010, https://proceedings.mlr.press/v9/glorot10a.html.

    >>> from jaxconv import serial
    >>> from jaxconv.ops import sigmoid, tanh
    >>> saturation(serial(tanh, sigmoid), {}, {}, np.array([9.0, 1.0, 0.0, -9.0], np.float32).reshape(4, 1, 1, 1))
    {'tanh1': 0.5, 'sigmoid1': 0.0}
    """
    layers = [name for name, layer in named_layers(model).items() if layer.kind in EDGES]
    found = _activity("saturation", model, params, state, images, layers, (), batch_size)
    return {name: float(np.mean(each.saturated)) for name, each in found.items() if each.saturated is not None}


def feature_correlation(
    model: Layer, params: Any, state: Any, images: Any, *, layer: str, batch_size: int = 256
) -> Correlation:
    """Pearson's correlation ρ of each pair of a layer's channels, over all images and places.

    Feature maps that go together say the same twice: the lectures want them uncorrelated. With few images and no
    places, as behind a dense layer, any two go together.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        layer: whose feature maps.
        batch_size: images at a time.

    Raises:
        InputError: a layer that the model has not, or no image.

    Lecture row 003-25.

    >>> from jaxconv import flatten, serial
    >>> x = np.array([[1, 2, 1], [2, 4, 0], [3, 6, 1]], np.float32).reshape(3, 1, 1, 3)
    >>> found = feature_correlation(serial(flatten), {}, {}, x, layer="flatten1")
    >>> found.matrix.round(2).tolist(), found.duplicates
    ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [(0, 1)])
    """
    found = _activity("feature_correlation", model, params, state, images, (layer,), (layer,), batch_size)
    return cast(Correlation, found[layer].correlation)  # it was asked for


def _activity(
    function: str,
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    layers: Sequence[str] | None,
    correlate: Sequence[str],
    batch_size: int,
) -> dict[str, Activity]:
    layers = layer_names(model) if layers is None else tuple(layers)
    for name in (*layers, *correlate):
        check_layer(function, model, name)
    kinds = {name: layer.kind for name, layer in named_layers(model).items()}

    def look(x: jax.Array, mask: jax.Array) -> dict[str, dict[str, jax.Array]]:
        maps = feature_maps(model, params, state, x, layers=layers)
        return {name: _of_a_batch(kinds[name], y, mask, name in correlate) for name, y in maps.items()}

    images_seen = 0
    counts: dict[str, dict[str, np.ndarray]] = {}
    moments: dict[str, Moments] = {}
    for found, count in each_batch(function, look, images, batch_size):
        images_seen += count
        for name in layers:
            numbers = jax.device_get(found[name])
            new = {key: np.asarray(numbers[key], np.int64) for key in ("live", "zeros", "saturated") if key in numbers}
            part = moments_of(numbers, count * int(numbers["places"]))
            counts[name] = {key: counts[name][key] + new[key] for key in new} if name in counts else new
            moments[name] = moments[name].joined(part) if name in moments else part
    return {name: _summed(counts[name], moments[name], images_seen) for name in layers}


def _of_a_batch(kind: str, y: jax.Array, mask: jax.Array, crossed: bool) -> dict[str, jax.Array]:
    """Counts of one layer and one batch, and its moments."""
    if y.ndim < 2:
        raise InputError(f"activity: the output {y.shape} of {kind} has no channels: leave it out of layers")
    places = math.prod(y.shape[1:-1])
    rows = y.reshape(len(y), places, y.shape[-1])
    counts = mask[:, None, None]
    number = functools.partial(jnp.sum, axis=(0, 1), dtype=jnp.int32)
    found = {
        "live": jnp.sum(jnp.any(rows != 0, axis=1) & mask[:, None], axis=0, dtype=jnp.int32),
        "zeros": number((rows == 0) & counts),
        "places": jnp.array(places),
    } | batch_moments(y, mask, crossed=crossed)
    if kind in EDGES:
        low, high = EDGES[kind]
        found["saturated"] = number(((rows < low + 0.01) | (rows > high - 0.01)) & counts)
    return found


def _summed(counts: dict[str, np.ndarray], moments: Moments, images: int) -> Activity:
    crossed = moments.spread.ndim == 2
    squares = np.diag(moments.spread) if crossed else moments.spread
    return Activity(
        counts["live"] / images,
        counts["zeros"] / moments.places,
        moments.mean,
        np.sqrt(np.maximum(squares, 0) / moments.places),
        counts["saturated"] / moments.places if "saturated" in counts else None,
        moments.places,
        moments.correlation() if crossed else None,
    )
