"""Channel statistics over a dataset: active fractions, means and correlations, accumulated over batches."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_layer, feature_maps, layer_names, map_batches
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers, source_kernel_layer
from jaxconv.train.diagnostics import rectifier_names


class Correlation(NamedTuple):
    """Correlation ρ between the channels of a layer.

    Attributes:
        matrix: ``(C, C)``, ρ from −1 to 1; NaN in the rows and columns of constant channels.
        mean_absolute: mean of |ρ| over the pairs of different, non-constant channels; NaN if there is no such pair.
        duplicates: pairs ``(i, j)``, i < j, with |ρ| > 0.999.
        constant: channels with the same value everywhere, such as dead ones, whose correlation is undefined.
    """

    matrix: np.ndarray
    mean_absolute: float
    duplicates: list[tuple[int, int]]
    constant: list[int]


class ChannelStatistics(NamedTuple):
    """Statistics of the channels of one layer.

    Attributes:
        active_fraction: ``(C,)``, fraction of images for which the channel is nonzero at some position.
        zero_fraction: ``(C,)``, fraction of outputs that are exactly 0.
        mean, std: ``(C,)``, over images and positions.
        saturated_fraction: ``(C,)``, fraction of outputs within 0.01 of the ends of the activation's range; None except
            for tanh, sigmoid and their hard variants.
        num_positions: number of outputs per channel, over all images.
        correlation: correlation between the channels; None unless requested.
    """

    active_fraction: np.ndarray
    zero_fraction: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    saturated_fraction: np.ndarray | None
    num_positions: int
    correlation: Correlation | None = None


class DeadChannel(NamedTuple):
    """A filter that is active for no image, or for almost none.

    Attributes:
        layer: rectifier whose output is 0, ``relu2``.
        channel: channel index.
        live: fraction of images for which the channel is active.
        kernel: layer with the kernel that computes the channel, ``conv2``; None after a sum or a concatenation.
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
    """Compute the statistics of every channel in one pass over the images, with one compiled function.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        layers: names of the layers; by default all.
        correlate: names of the layers for which the ``(C, C)`` correlation is computed as well.
        batch_size: number of images per batch.

    Returns:
        :class:`ChannelStatistics` by layer name, in the order in which the layers are computed. The last axis of an
        output is its channel axis.

    Raises:
        InputError: if a layer name is unknown, an output has no channel axis, or ``images`` is empty.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> images = np.array([[-1.0, 2.0], [-1.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    >>> relu1 = activation_statistics(serial(relu), {}, {}, images)["relu1"]
    >>> relu1.active_fraction.tolist(), relu1.zero_fraction.tolist(), relu1.mean.tolist(), relu1.std.tolist()
    ([0.0, 0.5], [1.0, 0.5], [0.0, 1.0], [0.0, 1.0])
    """
    return _channel_statistics(model, params, state, images, layers, correlate, batch_size)


@named_errors
def dead_filters(
    model: Layer, params: Any, state: Any, images: Any, *, max_active_fraction: float = 0.0, batch_size: int = 256
) -> list[DeadChannel]:
    """List the dead filters: those whose rectified output (relu, relu6) is 0 at every position of every image.

    A dead filter receives no gradient, so it stays dead. The cause is too large a step or the initialization. A lower
    learning rate (or a warmup), ``leaky_relu`` instead of ``relu``, batch norm before it, or another ``kernel_init``
    may help. Pruning dead filters does not change the logits.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``; more images give fewer false positives.
        max_active_fraction: largest fraction of images for which a reported filter may be active.
        batch_size: number of images per batch.

    Raises:
        InputError: if ``max_active_fraction`` is not in [0, 1) or ``images`` is empty.

    Lecture row 003-24.

    >>> from jaxconv import relu, serial
    >>> dead_filters(serial(relu), {}, {}, np.array([[[[-1.0, 2.0]]]], np.float32))
    [DeadChannel(layer='relu1', channel=0, live=0.0, kernel=None)]
    """
    if not 0 <= max_active_fraction < 1:
        raise InputError(
            f"max_active_fraction must be a fraction of the images, in [0, 1), got {max_active_fraction!r}"
        )
    layers = rectifier_names(model)
    statistics = _channel_statistics(model, params, state, images, layers, (), batch_size)
    source_layers = source_kernel_layer(model, params, state, np.shape(images)[1:])
    return [
        DeadChannel(name, int(channel), float(layer_statistics.active_fraction[channel]), source_layers.get(name))
        for name, layer_statistics in statistics.items()
        for channel in np.flatnonzero(layer_statistics.active_fraction <= max_active_fraction)
    ]


@named_errors
def saturation(model: Layer, params: Any, state: Any, images: Any, *, batch_size: int = 256) -> dict[str, float]:
    """Compute the fraction of saturated outputs: ``|tanh| > 0.99``, or a sigmoid below 0.01 or above 0.99.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        batch_size: number of images per batch.

    Returns:
        Fraction by layer name, for every tanh, sigmoid, hard_tanh and hard_sigmoid.

    Raises:
        InputError: if ``images`` is empty.

    Source: Glorot and Bengio, 2010, https://proceedings.mlr.press/v9/glorot10a.html.

    >>> from jaxconv import serial
    >>> from jaxconv.ops import sigmoid, tanh
    >>> saturation(serial(tanh, sigmoid), {}, {}, np.array([9.0, 1.0, 0.0, -9.0], np.float32).reshape(4, 1, 1, 1))
    {'tanh1': 0.5, 'sigmoid1': 0.0}
    """
    layers = [name for name, layer in named_layers(model).items() if layer.facts.saturates_at]
    statistics = _channel_statistics(model, params, state, images, layers, (), batch_size)
    return {
        name: float(np.mean(layer_statistics.saturated_fraction))
        for name, layer_statistics in statistics.items()
        if layer_statistics.saturated_fraction is not None
    }


@named_errors
def feature_correlation(
    model: Layer, params: Any, state: Any, images: Any, *, layer: str, batch_size: int = 256
) -> Correlation:
    """Compute Pearson's correlation ρ of each pair of channels of a layer, over all images and positions.

    Correlated feature maps are redundant. With few images and no spatial positions, as after a dense layer, high
    correlations may be due to chance.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``.
        layer: name of the layer.
        batch_size: number of images per batch.

    Raises:
        InputError: if the layer name is unknown or ``images`` is empty.

    Lecture row 003-25.

    >>> from jaxconv import flatten, serial
    >>> x = np.array([[1, 2, 1], [2, 4, 0], [3, 6, 1]], np.float32).reshape(3, 1, 1, 3)
    >>> correlation = feature_correlation(serial(flatten), {}, {}, x, layer="flatten1")
    >>> correlation.matrix.round(2).tolist(), correlation.duplicates
    ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [(0, 1)])
    """
    statistics = _channel_statistics(model, params, state, images, (layer,), (layer,), batch_size)
    return cast(Correlation, statistics[layer].correlation)  # not None: the layer is in correlate


def _channel_statistics(
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
    by_name = named_layers(model)

    def batch_statistics(x: jax.Array, mask: jax.Array) -> dict[str, dict[str, jax.Array]]:
        maps = feature_maps(model, params, state, x, layers=layers)
        return {name: _batch_statistics(by_name[name], y, mask, name in correlate) for name, y in maps.items()}

    num_images = 0
    counts: dict[str, dict[str, np.ndarray]] = {}
    moments: dict[str, Moments] = {}
    for results, num_valid in map_batches(batch_statistics, images, batch_size):
        num_images += num_valid
        for name in layers:
            values = jax.device_get(results[name])
            added = {
                key: np.asarray(values[key], np.int64) for key in ("active", "zeros", "saturated") if key in values
            }
            batch_moments = _to_moments(values, num_valid * int(values["num_positions"]))
            counts[name] = {key: counts[name][key] + added[key] for key in added} if name in counts else added
            moments[name] = moments[name].merge(batch_moments) if name in moments else batch_moments
    return {name: _to_channel_statistics(counts[name], moments[name], num_images) for name in layers}


def _batch_statistics(layer: Layer, y: jax.Array, mask: jax.Array, full_covariance: bool) -> dict[str, jax.Array]:
    """Return the counts and the moments of one layer's output for one batch."""
    if y.ndim < 2:
        error = InputError(f"the output {y.shape} of {layer.kind} has no channel axis: remove it from layers")
        raise error.from_source("activation_statistics")
    num_positions = math.prod(y.shape[1:-1])
    values = y.reshape(len(y), num_positions, y.shape[-1])
    valid_mask = mask[:, None, None]
    count = functools.partial(jnp.sum, axis=(0, 1), dtype=jnp.int32)
    statistics = {
        "active": jnp.sum(jnp.any(values != 0, axis=1) & mask[:, None], axis=0, dtype=jnp.int32),
        "zeros": count((values == 0) & valid_mask),
        "num_positions": jnp.array(num_positions),
    } | _batch_moments(y, mask, full_covariance=full_covariance)
    if layer.facts.saturates_at:
        low, high = layer.facts.saturates_at
        statistics["saturated"] = count(((values < low + 0.01) | (values > high - 0.01)) & valid_mask)
    return statistics


class Moments(NamedTuple):
    """Mean and scatter of the channels over a set of positions, in float64.

    Attributes:
        num_positions: number of positions.
        mean: ``(C,)``.
        scatter: sum over positions of the products of deviations from the mean, ``(C, C)``; or of their squares,
            ``(C,)``.
    """

    num_positions: int
    mean: np.ndarray
    scatter: np.ndarray

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets, without large sums of squares.

        Source: Chan, Golub and LeVeque, 1983, https://doi.org/10.1080/00031305.1983.10483115.
        """
        num_positions, delta = self.num_positions + other.num_positions, other.mean - self.mean
        between = delta * delta if self.scatter.ndim == 1 else np.outer(delta, delta)
        return Moments(
            num_positions,
            self.mean + delta * (other.num_positions / num_positions),
            self.scatter + other.scatter + between * (self.num_positions * other.num_positions / num_positions),
        )

    def correlation(self) -> Correlation:
        """Return the correlation of the channels, ``ρ = scatter_ij / √(scatter_ii · scatter_jj)``."""
        variance_sum = np.diag(self.scatter)
        # A constant channel may still vary by float32 rounding.
        rounding = (4 * np.finfo(np.float32).eps * np.abs(self.mean)) ** 2 * self.num_positions
        varies = variance_sum > rounding
        deviation = np.sqrt(np.where(varies, variance_sum, np.nan))
        with np.errstate(invalid="ignore"):
            matrix = np.clip(self.scatter / np.outer(deviation, deviation), -1, 1)
        off_diagonal = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
        off_diagonal = off_diagonal[~np.isnan(off_diagonal)]
        pairs = np.argwhere(np.triu(np.nan_to_num(np.abs(matrix)) > DUPLICATE_CORRELATION, k=1))
        return Correlation(
            matrix,
            float(off_diagonal.mean()) if len(off_diagonal) else float("nan"),
            [(int(i), int(j)) for i, j in pairs],
            [int(i) for i in np.flatnonzero(~varies)],
        )


def _to_channel_statistics(counts: dict[str, np.ndarray], moments: Moments, num_images: int) -> ChannelStatistics:
    full_covariance = moments.scatter.ndim == 2
    variance_sum = np.diag(moments.scatter) if full_covariance else moments.scatter
    return ChannelStatistics(
        counts["active"] / num_images,
        counts["zeros"] / moments.num_positions,
        moments.mean,
        np.sqrt(np.maximum(variance_sum, 0) / moments.num_positions),
        counts["saturated"] / moments.num_positions if "saturated" in counts else None,
        moments.num_positions,
        moments.correlation() if full_covariance else None,
    )


DUPLICATE_CORRELATION = 0.999  # |ρ| above which two filters count as duplicates


def _batch_moments(y: jax.Array, mask: jax.Array, *, full_covariance: bool) -> dict[str, jax.Array]:
    """Return mean and scatter of the channels over the valid images of a batch.

    The mean is computed in two passes: the mean of the deviations corrects the float32 rounding of the first pass.

    Args:
        y: output of a layer, ``(N, …, C)``.
        mask: ``(N,)``, True for valid images.
        full_covariance: return the scatter of each pair of channels, ``(C, C)``, instead of ``(C,)``.
    """
    values = y.reshape(-1, y.shape[-1]).astype(jnp.promote_types(y.dtype, jnp.float32))
    valid_mask = jnp.repeat(mask, len(values) // len(y))[:, None]
    num_valid = jnp.maximum(valid_mask.sum(dtype=values.dtype), 1)
    mean = jnp.sum(values, axis=0, where=valid_mask) / num_valid
    values = jnp.where(valid_mask, values - mean[None], 0)
    mean_correction = values.sum(axis=0) / num_valid
    values = jnp.where(valid_mask, values - mean_correction[None], 0)
    scatter = jnp.matmul(values.T, values, precision="highest") if full_covariance else (values * values).sum(axis=0)
    return {"mean": mean, "mean_correction": mean_correction, "scatter": scatter}


def _to_moments(batch_moments: dict[str, jax.Array], num_positions: int) -> Moments:
    """Convert the result of :func:`_batch_moments` to float64 :class:`Moments`."""
    mean, correction, scatter = (
        np.asarray(batch_moments[name], np.float64) for name in ("mean", "mean_correction", "scatter")
    )
    return Moments(num_positions, mean + correction, scatter)
