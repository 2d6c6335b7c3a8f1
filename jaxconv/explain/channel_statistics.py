"""Statistics of every channel over a data set: active fractions, means and correlations, added up over batches."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_layer, each_batch, feature_maps, layer_names
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers, source_kernel_layer
from jaxconv.train.diagnostics import rectifier_names


class Correlation(NamedTuple):
    """How much alike the channels of a layer answer.

    Attributes:
        matrix: ``(C, C)``, ρ from −1 to 1; NaN in the rows and columns of constant channels.
        mean_absolute: the mean of |ρ| off the diagonal, without those; NaN if fewer than two are left.
        duplicates: the pairs ``(i, j)``, i < j, with |ρ| > 0.999.
        constant: the channels that are the same everywhere, such as dead ones: they have no correlation.
    """

    matrix: np.ndarray
    mean_absolute: float
    duplicates: list[tuple[int, int]]
    constant: list[int]


class ChannelStatistics(NamedTuple):
    """What the channels of one layer do, an entry each.

    Attributes:
        active_fraction: ``(C,)``, the share of images in which it is anything but 0 somewhere.
        zero_fraction: ``(C,)``, the share of its outputs that are exactly 0.
        mean, std: ``(C,)``, over images and places.
        saturated_fraction: ``(C,)``, the share of its outputs within 0.01 of the ends of its range; None but for
            tanh, sigmoid and their hard variants.
        num_positions: how many outputs each channel has had, over all images.
        correlation: between the channels, where it was asked for.
    """

    active_fraction: np.ndarray
    zero_fraction: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    saturated_fraction: np.ndarray | None
    num_positions: int
    correlation: Correlation | None = None


class DeadChannel(NamedTuple):
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


@named_errors
def activation_statistics(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    layers: Sequence[str] | None = None,
    correlate: Sequence[str] = (),
    batch_size: int = 256,
) -> dict[str, ChannelStatistics]:
    """What every channel does over all images: gone through once, by one compiled program.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        layers: only these; by default all.
        correlate: of these, the correlation between channels too: ``C²`` numbers each.
        batch_size: images at a time.

    Returns:
        An :class:`ChannelStatistics` for each layer, in the order in which they are computed. The last axis of an
        output is its channels.

    Raises:
        InputError: a layer that the model has not, or no image.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> images = np.array([[-1.0, 2.0], [-1.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    >>> found = activation_statistics(serial(relu), {}, {}, images)["relu1"]
    >>> found.active_fraction.tolist(), found.zero_fraction.tolist(), found.mean.tolist(), found.std.tolist()
    ([0.0, 0.5], [1.0, 0.5], [0.0, 1.0], [0.0, 1.0])
    """
    return _activity(model, params, state, images, layers, correlate, batch_size)


@named_errors
def dead_filters(
    model: Layer, params: Any, state: Any, images: Any, *, max_active_fraction: float = 0.0, batch_size: int = 256
) -> list[DeadChannel]:
    """The filters whose rectified output (relu, relu6) is 0 everywhere in all of the images.

    No gradient goes through a dead filter, so it stays dead: it was pushed there by too large a step, or began
    there. A lower learning rate (or a warmup), ``leaky_relu`` instead of ``relu``, batch norm before it, or another
    ``kernel_init`` are what helps; what is dead can be cut out without a change of the logits.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``: the more, the surer.
        max_active_fraction: report those too that answer to no more than this share of the images.
        batch_size: images at a time.

    Raises:
        InputError: a share that is none, or no image.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> dead_filters(serial(relu), {}, {}, np.array([[[[-1.0, 2.0]]]], np.float32))
    [DeadChannel(layer='relu1', channel=0, live=0.0, kernel=None)]
    """
    if not 0 <= max_active_fraction < 1:
        raise InputError(
            f"max_active_fraction={max_active_fraction!r} should be a share of the images, from 0 to below 1"
        )
    layers = rectifier_names(model)
    found = _activity(model, params, state, images, layers, (), batch_size)
    kernels = source_kernel_layer(model, params, state, np.shape(images)[1:])
    return [
        DeadChannel(name, int(channel), float(each.active_fraction[channel]), kernels.get(name))
        for name, each in found.items()
        for channel in np.flatnonzero(each.active_fraction <= max_active_fraction)
    ]


@named_errors
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
    layers = [name for name, layer in named_layers(model).items() if layer.facts.saturates_at]
    found = _activity(model, params, state, images, layers, (), batch_size)
    return {
        name: float(np.mean(each.saturated_fraction))
        for name, each in found.items()
        if each.saturated_fraction is not None
    }


@named_errors
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
    found = _activity(model, params, state, images, (layer,), (layer,), batch_size)
    return cast(Correlation, found[layer].correlation)  # it was asked for


def _activity(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    layers: Sequence[str] | None,
    correlate: Sequence[str],
    batch_size: int,
) -> dict[str, ChannelStatistics]:
    layers = layer_names(model) if layers is None else tuple(layers)
    for name in (*layers, *correlate):
        check_layer(model, name)
    parts = named_layers(model)

    def look(x: jax.Array, mask: jax.Array) -> dict[str, dict[str, jax.Array]]:
        maps = feature_maps(model, params, state, x, layers=layers)
        return {name: _of_a_batch(parts[name], y, mask, name in correlate) for name, y in maps.items()}

    images_seen = 0
    counts: dict[str, dict[str, np.ndarray]] = {}
    moments: dict[str, Moments] = {}
    for found, count in each_batch(look, images, batch_size):
        images_seen += count
        for name in layers:
            numbers = jax.device_get(found[name])
            new = {key: np.asarray(numbers[key], np.int64) for key in ("live", "zeros", "saturated") if key in numbers}
            part = moments_of(numbers, count * int(numbers["places"]))
            counts[name] = {key: counts[name][key] + new[key] for key in new} if name in counts else new
            moments[name] = moments[name].joined(part) if name in moments else part
    return {name: _summed(counts[name], moments[name], images_seen) for name in layers}


def _of_a_batch(layer: Layer, y: jax.Array, mask: jax.Array, crossed: bool) -> dict[str, jax.Array]:
    """Counts of one layer and one batch, and its moments."""
    if y.ndim < 2:
        error = InputError(f"the output {y.shape} of {layer.kind} has no channels: leave it out of layers")
        raise error.from_source("activation_statistics")
    places = math.prod(y.shape[1:-1])
    rows = y.reshape(len(y), places, y.shape[-1])
    counts = mask[:, None, None]
    number = functools.partial(jnp.sum, axis=(0, 1), dtype=jnp.int32)
    found = {
        "live": jnp.sum(jnp.any(rows != 0, axis=1) & mask[:, None], axis=0, dtype=jnp.int32),
        "zeros": number((rows == 0) & counts),
        "places": jnp.array(places),
    } | batch_moments(y, mask, crossed=crossed)
    if layer.facts.saturates_at:
        low, high = layer.facts.saturates_at
        found["saturated"] = number(((rows < low + 0.01) | (rows > high - 0.01)) & counts)
    return found


class Moments(NamedTuple):
    """Mean and spread of some places; those of more of them are ``joined``, in float64.

    Attributes:
        places: how many.
        mean: ``(C,)``.
        spread: ``(C, C)`` or, of each channel alone, ``(C,)``: the sum of products of what is left without the mean.
    """

    places: int
    mean: np.ndarray
    spread: np.ndarray

    def joined(self, other: "Moments") -> "Moments":
        """Chan, Golub and LeVeque, 1983, https://doi.org/10.1080/00031305.1983.10483115: no large sums of squares."""
        places, step = self.places + other.places, other.mean - self.mean
        between = step * step if self.spread.ndim == 1 else np.outer(step, step)
        return Moments(
            places,
            self.mean + step * (other.places / places),
            self.spread + other.spread + between * (self.places * other.places / places),
        )

    def correlation(self) -> Correlation:
        """What channels have in common, ``ρ = spread_ij / √(spread_ii · spread_jj)``."""
        squares = np.diag(self.spread)
        # What float32 makes of one number again and again may differ in its last digits.
        rounding = (4 * np.finfo(np.float32).eps * np.abs(self.mean)) ** 2 * self.places
        varies = squares > rounding
        size = np.sqrt(np.where(varies, squares, np.nan))
        with np.errstate(invalid="ignore"):
            matrix = np.clip(self.spread / np.outer(size, size), -1, 1)
        others = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
        others = others[~np.isnan(others)]
        pairs = np.argwhere(np.triu(np.nan_to_num(np.abs(matrix)) > SAME, k=1))
        return Correlation(
            matrix,
            float(others.mean()) if len(others) else float("nan"),
            [(int(i), int(j)) for i, j in pairs],
            [int(i) for i in np.flatnonzero(~varies)],
        )


def _summed(counts: dict[str, np.ndarray], moments: Moments, images: int) -> ChannelStatistics:
    crossed = moments.spread.ndim == 2
    squares = np.diag(moments.spread) if crossed else moments.spread
    return ChannelStatistics(
        counts["live"] / images,
        counts["zeros"] / moments.places,
        moments.mean,
        np.sqrt(np.maximum(squares, 0) / moments.places),
        counts["saturated"] / moments.places if "saturated" in counts else None,
        moments.places,
        moments.correlation() if crossed else None,
    )


SAME = 0.999  # two filters whose correlation is beyond this do the same


def batch_moments(y: jax.Array, mask: jax.Array, *, crossed: bool) -> dict[str, jax.Array]:
    """Mean and spread of a batch's channels ``(N, …, C)``, of the images that the mask lets count.

    The mean is taken twice: what the first one is off by in float32 is the mean of what is left without it.

    Args:
        y: a layer's output.
        mask: ``(N,)``.
        crossed: of each pair of channels, or of each alone.
    """
    rows = y.reshape(-1, y.shape[-1]).astype(jnp.promote_types(y.dtype, jnp.float32))
    counts = jnp.repeat(mask, len(rows) // len(y))[:, None]
    total = jnp.maximum(counts.sum(dtype=rows.dtype), 1)
    mean = jnp.sum(rows, axis=0, where=counts) / total
    rows = jnp.where(counts, rows - mean[None], 0)
    rest = rows.sum(axis=0) / total
    rows = jnp.where(counts, rows - rest[None], 0)
    spread = jnp.matmul(rows.T, rows, precision="highest") if crossed else (rows * rows).sum(axis=0)
    return {"mean": mean, "rest": rest, "spread": spread}


def moments_of(found: dict[str, jax.Array], places: int) -> Moments:
    """What :func:`batch_moments` found, of so many places."""
    mean, rest, spread = (np.asarray(found[name], np.float64) for name in ("mean", "rest", "spread"))
    return Moments(places, mean + rest, spread)
