"""Diagnosis of a network: one row per layer, warnings as sentences, and norms of gradients and updates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import ops
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import resolve_target
from jaxconv.explain.channel_statistics import ChannelStatistics, Correlation, activation_statistics
from jaxconv.explain.intermediates import check_images
from jaxconv.layers import Facts, Layer, as_layer
from jaxconv.layers.traversal import kernels_by_layer, named_layers, source_kernel_layer

MAX_CHANNELS = 1024  # above, the pairwise correlation takes too long
MIN_POSITIONS = 100  # below, filters may correlate by chance
VANISHING_RATIO = 1e-3  # of the largest gradient norm
MAX_LISTED = 8  # items listed in a warning


class LayerDiagnosis(NamedTuple):
    """Diagnosis of one layer; None for a number that does not apply to its kind or was not computed.

    Attributes:
        name, kind: ``conv2``, ``conv``.
        channels: number of channels.
        dead: number of channels that are 0 for every image; for relu and relu6.
        active_fraction: fraction of images for which a channel is active, averaged over the channels.
        zero_fraction: fraction of outputs that are exactly 0.
        saturation: fraction of outputs with a slope of nearly 0; for tanh, sigmoid and their hard variants.
        correlation: mean |ρ| between the channels; for layers with a kernel, except the last one.
        duplicates: number of pairs of duplicate filters; for the same layers as ``correlation``.
        gradient: ``‖d loss / d kernel‖`` of the first batch.
        facts: the layer's facts.
    """

    name: str
    kind: str
    channels: int
    dead: int | None
    active_fraction: float
    zero_fraction: float
    saturation: float | None
    correlation: float | None
    duplicates: int | None
    gradient: float | None
    facts: Facts = Facts()


class Diagnosis(NamedTuple):
    """Result of :func:`diagnose`.

    Attributes:
        rows: one row per layer, without pools, flatten and dropout.
        warnings: human-readable sentences; empty if no problem was detected.
        correlations: correlation between the channels of each layer with a kernel, except the last one.
    """

    rows: list[LayerDiagnosis]
    warnings: list[str]
    correlations: dict[str, Correlation]


@named_errors
def diagnose(
    model: Layer, params: Any, state: Any, images: Any, labels: Any = None, *, batch_size: int = 256
) -> Diagnosis:
    """Detect dead, saturated and duplicate filters and vanishing gradients, in one pass over the images.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``; more images give fewer false positives.
        labels: ``(N,)``, optional; needed for the gradient norms of the first batch, in training mode (dropout with
            key 0).
        batch_size: number of images per batch.

    Raises:
        InputError: if ``images`` is empty or the labels do not match them.

    Lecture rows 003-22, 003-24, 003-25.

    >>> from jaxconv import Conv, relu, serial
    >>> model = serial(Conv(2, 1), relu)
    >>> params = {"conv1": {"kernel": np.ones((1, 1, 1, 2), np.float32), "bias": np.array([0, -9], np.float32)}}
    >>> diagnosis = diagnose(model, params, {}, np.ones((3, 2, 2, 1), np.float32))
    >>> [(row.name, row.channels, row.dead) for row in diagnosis.rows], diagnosis.warnings[0][:30]
    ([('conv1', 2, None), ('relu1', 2, 1)], 'conv1: 1 of 2 filters is dead ')
    """
    check_images(images[:1])
    if labels is not None and np.shape(labels) != np.shape(images)[:1]:
        raise InputError(f"labels must be ({len(images)},), one per image, got shape {np.shape(labels)}")
    kernels = kernels_by_layer(model, params)
    correlated = [name for name, kernel in list(kernels.items())[:-1] if kernel.shape[-1] <= MAX_CHANNELS]
    layers = {name: layer for name, layer in named_layers(model).items() if not _only_forwards(layer.facts)}
    statistics = activation_statistics(
        model, params, state, images, layers=tuple(layers), correlate=correlated, batch_size=batch_size
    )
    gradients: dict[str, float] = {}
    if labels is not None:
        first_batch = (images[:batch_size], np.asarray(labels)[:batch_size])
        norms = jax.jit(
            lambda params, x, labels: gradient_norms(model, params, state, x, labels, key=jax.random.key(0))
        )(params, *first_batch)
        gradients = {name: float(norms[name]) for name in kernels}
    rows = [_diagnose_layer(name, layer, statistics[name], gradients.get(name)) for name, layer in layers.items()]
    source_layers = source_kernel_layer(model, params, state, np.shape(images)[1:])
    correlations = {
        name: layer_statistics.correlation
        for name, layer_statistics in statistics.items()
        if layer_statistics.correlation is not None
    }
    return Diagnosis(rows, _warnings(rows, statistics, source_layers, len(images)), correlations)


def _only_forwards(facts: Facts) -> bool:
    return facts.pools is not None or facts.identity_at_inference


def _diagnose_layer(name: str, layer: Layer, statistics: ChannelStatistics, gradient: float | None) -> LayerDiagnosis:
    has_enough = statistics.correlation is not None and statistics.num_positions >= MIN_POSITIONS
    return LayerDiagnosis(
        name=name,
        kind=layer.kind,
        channels=len(statistics.active_fraction),
        dead=int(np.sum(statistics.active_fraction == 0)) if layer.facts.rectifies else None,
        active_fraction=float(np.mean(statistics.active_fraction)),
        zero_fraction=float(np.mean(statistics.zero_fraction)),
        saturation=None if statistics.saturated_fraction is None else float(np.mean(statistics.saturated_fraction)),
        correlation=statistics.correlation.mean_absolute if has_enough and statistics.correlation else None,
        duplicates=len(statistics.correlation.duplicates) if has_enough and statistics.correlation else None,
        gradient=gradient,
        facts=layer.facts,
    )


def _warnings(
    rows: list[LayerDiagnosis], statistics: dict[str, ChannelStatistics], source_layers: dict[str, str], num_images: int
) -> list[str]:
    warnings = []
    for row in rows:
        layer_statistics = statistics[row.name]
        if not np.isfinite(layer_statistics.mean).all():
            warnings.append(f"{row.name}: not all of its outputs are finite; a lower learning rate may help")
            continue
        if row.dead:
            filters = np.flatnonzero(layer_statistics.active_fraction == 0)
            verb = "is dead" if len(filters) == 1 else "are dead"
            warnings.append(
                f"{source_layers.get(row.name, row.name)}: {len(filters)} of {row.channels} filters {verb} "
                f"({_join_names(filters)}): {row.name} is 0 for all {num_images:,} images, so the gradient is 0; "
                "a lower learning rate, leaky_relu or another kernel_init may help"
            )
        if row.saturation is not None and row.saturation > 0.5:
            limits = " and ".join(f"{end}" for end in row.facts.saturates_at or ())
            warnings.append(
                f"{row.name}: {row.saturation:.0%} of its outputs are nearly {limits}, where the gradient vanishes; "
                "smaller initial kernels, batch norm before it, or relu may help"
            )
        if row.duplicates and layer_statistics.correlation:
            pairs = [f"{i} and {j}" for i, j in layer_statistics.correlation.duplicates]
            warnings.append(
                f"{row.name}: duplicate filters (|ρ| > 0.999): {_join_names(pairs)}; one of each pair is redundant"
            )
    norms = [(row.name, row.gradient) for row in rows if row.gradient is not None]
    largest = max((norm for _, norm in norms), default=0.0)
    vanishing = [name for name, norm in norms if norm < VANISHING_RATIO * largest]
    if vanishing:
        warnings.append(
            f"{_join_names(vanishing)}: the gradient is less than a thousandth of the largest one; residual "
            "connections, batch norm, or other activations may help"
        )
    return warnings


def _join_names(items: Sequence[Any] | np.ndarray) -> str:
    num_omitted = len(items) - MAX_LISTED
    return ", ".join(map(str, items[:MAX_LISTED])) + (f" and {num_omitted} more" if num_omitted > 0 else "")


@named_errors
def gradient_norms(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    key: jax.Array | None = None,
    train: bool = True,
) -> dict[str, jax.Array]:
    """Compute ``‖d loss / d kernel‖`` of every layer with a kernel; the loss is the mean cross-entropy.

    Vanishing gradients are orders of magnitude smaller in the first layers than in the last ones.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, one batch.
        labels: ``(N,)`` class indices.
        key: random key of dropout.
        train: True for training mode (batch statistics and dropout), False for inference mode.

    Returns:
        Norm by layer name, in the order of the layers. (``jit`` returns dicts sorted by name.)

    Raises:
        InputError: if ``images`` is empty, the labels do not match them, or dropout has no key.

    Lecture row 003-22.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=2)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> norms = gradient_norms(model, params, state, jnp.ones((1, 2, 2, 1)), jnp.array([0]))
    >>> list(norms), all(norm > 0 for norm in norms.values())
    (['dense1', 'dense2', 'dense3'], True)
    """
    gradient = _gradient(model, params, state, images, labels, key, train)
    return {name: _norm(kernel) for name, kernel in kernels_by_layer(model, gradient).items()}


@named_errors
def update_ratios(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    optimizer: optax.GradientTransformation,
    opt_state: Any = None,
    key: jax.Array | None = None,
    train: bool = True,
) -> dict[str, jax.Array]:
    """Compute the update ratio ``‖Δ‖ / ‖kernel‖`` of every layer with a kernel, for one optimizer step Δ.

    A ratio of about 0.001 is healthy (https://cs231n.github.io/neural-networks-3/#ratio). If it is much larger, the
    learning rate may be too high; if it is much smaller, the layer hardly learns.

    Args:
        model, params, state, images, labels: as in :func:`gradient_norms`.
        optimizer: an optax optimizer, such as :func:`jaxconv.train.make_optimizer` returns.
        opt_state: optimizer state; by default the initial one.
        key, train: as in :func:`gradient_norms`.

    Returns:
        Ratio by layer name, in the order of the layers; infinite for a kernel of zeros with a nonzero update.

    Raises:
        InputError: as in :func:`gradient_norms`.

    Lecture row 003-22.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=2)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> x, label = jnp.ones((1, 2, 2, 1)), jnp.array([0])
    >>> list(update_ratios(model, params, state, x, label, optimizer=optax.sgd(0.1)))
    ['dense1', 'dense2', 'dense3']
    """
    gradient = _gradient(model, params, state, images, labels, key, train)
    updates, _ = optimizer.update(gradient, optimizer.init(params) if opt_state is None else opt_state, params)
    kernels = kernels_by_layer(model, params)
    return {name: _norm(delta) / _norm(kernels[name]) for name, delta in kernels_by_layer(model, updates).items()}


def _gradient(
    model: Layer, params: Any, state: Any, images: Any, labels: Any, key: jax.Array | None, train: bool
) -> Any:
    model, x, labels = as_layer(model), check_images(images), jnp.asarray(labels)
    if labels.shape != x.shape[:1]:
        raise InputError(f"labels must be ({len(x)},), one per image, got shape {labels.shape}")

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply(params, state, x, train=train, key=key)
        if logits.ndim != 2:
            raise InputError(f"the output must be logits (N, num_classes), got {logits.shape}")
        return jnp.mean(ops.softmax_cross_entropy(logits, resolve_target(logits, labels, "labels")))

    return jax.grad(loss)(params)


def _norm(array: jax.Array) -> jax.Array:
    """Return the Euclidean norm, scaled by the maximum so that tiny squares do not underflow in float32."""
    largest = jnp.max(jnp.abs(array))
    scale = jnp.where(largest > 0, largest, 1).astype(array.dtype)
    return scale * jnp.sqrt(jnp.sum((array / scale) ** 2))
