"""Diagnosis of a network: one row a layer, its problems in sentences, and the norms of gradients and updates."""

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

MOST_CHANNELS = 1024  # of more, a correlation of each pair takes too long
FEWEST_PLACES = 100  # of fewer, any two filters may go together by chance
VANISHED = 1e-3  # of the largest gradient
NAMED = 8  # filters in a sentence


class LayerDiagnosis(NamedTuple):
    """One layer; None where a number does not apply to its kind, or was not asked for.

    Attributes:
        name, kind: ``conv2``, ``conv``.
        channels: how many.
        dead: how many of them are 0 for every image; of relu and relu6.
        active_fraction: the share of images that a channel answers to, on average.
        zero_fraction: the share of outputs that are exactly 0.
        saturation: the share of outputs where the slope is nearly 0; of tanh, sigmoid and their hard variants.
        correlation: the mean |ρ| of its filters' outputs; of layers with a kernel, but for the last one.
        duplicates: how many pairs of filters do the same; as correlation.
        gradient: ``‖d loss / d kernel‖`` of the first batch.
        facts: those of the layer.
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
    """What :func:`diagnose` found.

    Attributes:
        rows: one a layer; those that only hand on what they are given (pools, flatten, dropout) are left out.
        warnings: sentences for people; none if nothing is wrong.
        correlations: of the feature maps of each layer with a kernel, but for the last one.
    """

    rows: list[LayerDiagnosis]
    warnings: list[str]
    correlations: dict[str, Correlation]


@named_errors
def diagnose(
    model: Layer, params: Any, state: Any, images: Any, labels: Any = None, *, batch_size: int = 256
) -> Diagnosis:
    """What is dead, saturated, doubled or starved in a network; the images are gone through once.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``: the more, the surer.
        labels: ``(N,)``; with them the gradients of the first batch are measured, as in training (dropout by key 0).
        batch_size: images at a time.

    Raises:
        InputError: no image, or labels that do not go with them.

    Lecture rows 003-22, 003-24, 003-25.

    >>> from jaxconv import Conv, relu, serial
    >>> model = serial(Conv(2, 1), relu)
    >>> params = {"conv1": {"kernel": np.ones((1, 1, 1, 2), np.float32), "bias": np.array([0, -9], np.float32)}}
    >>> found = diagnose(model, params, {}, np.ones((3, 2, 2, 1), np.float32))
    >>> [(row.name, row.channels, row.dead) for row in found.rows], found.warnings[0][:30]
    ([('conv1', 2, None), ('relu1', 2, 1)], 'conv1: 1 of 2 filters is dead ')
    """
    check_images(images[:1])
    if labels is not None and np.shape(labels) != np.shape(images)[:1]:
        raise InputError(f"labels {np.shape(labels)} should be one for each of the {len(images)} images")
    kernels = kernels_by_layer(model, params)
    correlated = [name for name, kernel in list(kernels.items())[:-1] if kernel.shape[-1] <= MOST_CHANNELS]
    layers = {name: layer for name, layer in named_layers(model).items() if not _hands_on(layer.facts)}
    found = activation_statistics(
        model, params, state, images, layers=tuple(layers), correlate=correlated, batch_size=batch_size
    )
    gradients: dict[str, float] = {}
    if labels is not None:
        first = (images[:batch_size], np.asarray(labels)[:batch_size])
        norms = jax.jit(
            lambda params, x, labels: gradient_norms(model, params, state, x, labels, key=jax.random.key(0))
        )(params, *first)
        gradients = {name: float(norms[name]) for name in kernels}
    rows = [_row(name, layer, found[name], gradients.get(name)) for name, layer in layers.items()]
    owners = source_kernel_layer(model, params, state, np.shape(images)[1:])
    correlations = {name: each.correlation for name, each in found.items() if each.correlation is not None}
    return Diagnosis(rows, _warnings(rows, found, owners, len(images)), correlations)


def _hands_on(facts: Facts) -> bool:
    return facts.pools is not None or facts.identity_at_inference


def _row(name: str, layer: Layer, of: ChannelStatistics, gradient: float | None) -> LayerDiagnosis:
    enough = of.correlation is not None and of.num_positions >= FEWEST_PLACES
    return LayerDiagnosis(
        name=name,
        kind=layer.kind,
        channels=len(of.active_fraction),
        dead=int(np.sum(of.active_fraction == 0)) if layer.facts.rectifies else None,
        active_fraction=float(np.mean(of.active_fraction)),
        zero_fraction=float(np.mean(of.zero_fraction)),
        saturation=None if of.saturated_fraction is None else float(np.mean(of.saturated_fraction)),
        correlation=of.correlation.mean_absolute if enough and of.correlation else None,
        duplicates=len(of.correlation.duplicates) if enough and of.correlation else None,
        gradient=gradient,
        facts=layer.facts,
    )


def _warnings(
    rows: list[LayerDiagnosis], found: dict[str, ChannelStatistics], owners: dict[str, str], images: int
) -> list[str]:
    said = []
    for row in rows:
        of = found[row.name]
        if not np.isfinite(of.mean).all():
            said.append(f"{row.name}: not all of its outputs are finite; a lower learning rate may help")
            continue
        if row.dead:
            filters = np.flatnonzero(of.active_fraction == 0)
            is_dead = "is dead" if len(filters) == 1 else "are dead"
            said.append(
                f"{owners.get(row.name, row.name)}: {len(filters)} of {row.channels} filters {is_dead} "
                f"({_listed(filters)}): behind {row.name} nothing is left of them in any of {images:,} images, so that "
                "they learn no more; a lower learning rate, leaky_relu or another kernel_init may help"
            )
        if row.saturation is not None and row.saturation > 0.5:
            ends = " and ".join(f"{end}" for end in row.facts.saturates_at or ())
            said.append(
                f"{row.name}: {row.saturation:.0%} of its outputs are nearly {ends}, where hardly any gradient comes "
                "through; smaller kernels at the start, batch norm before it, or relu may help"
            )
        if row.duplicates and of.correlation:
            pairs = [f"{i} and {j}" for i, j in of.correlation.duplicates]
            said.append(f"{row.name}: filters do the same (|ρ| > 0.999): {_listed(pairs)}; one of each pair is enough")
    norms = [(row.name, row.gradient) for row in rows if row.gradient is not None]
    largest = max((norm for _, norm in norms), default=0.0)
    starved = [name for name, norm in norms if norm < VANISHED * largest]
    if starved:
        said.append(
            f"{_listed(starved)}: the gradient is less than a thousandth of the largest one; residual connections, "
            "batch norm, or other activations may help"
        )
    return said


def _listed(things: Sequence[Any] | np.ndarray) -> str:
    more = len(things) - NAMED
    return ", ".join(map(str, things[:NAMED])) + (f" and {more} more" if more > 0 else "")


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
    """``‖d loss / d kernel‖`` of every layer that has a kernel; the loss is the mean cross-entropy of the images.

    Gradients that vanish are smaller by orders of magnitude in the first layers than in the last ones.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, one batch.
        labels: ``(N,)`` class numbers.
        key: of dropout.
        train: as in training, with the batch's statistics and dropout; False: as in use.

    Returns:
        A number for each layer, in the order of the layers. (``jit`` returns dicts sorted by name.)

    Raises:
        InputError: no image, labels that do not go with them, or dropout without a key.

    Lecture row 003-22.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=2)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> found = gradient_norms(model, params, state, jnp.ones((1, 2, 2, 1)), jnp.array([0]))
    >>> list(found), all(norm > 0 for norm in found.values())
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
    """``‖Δ‖ / ‖kernel‖`` of every layer that has one: how much of itself one step of the optimizer changes.

    About 0.001 is healthy, says Karpathy (https://cs231n.github.io/neural-networks-3/#ratio): with far more the
    learning rate is too high, with far less the layer stands still.

    Args:
        model, params, state, images, labels: as for :func:`gradient_norms`.
        optimizer: from optax, or :func:`jaxconv.train.make_optimizer`.
        opt_state: its own; by default that of its first step.
        key, train: as for :func:`gradient_norms`.

    Returns:
        A number for each layer, in the order of the layers; infinite for a kernel of zeros that is changed.

    Raises:
        InputError: as :func:`gradient_norms`.

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
        raise InputError(f"labels {labels.shape} should be one for each of the {len(x)} images")

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply(params, state, x, train=train, key=key)
        if logits.ndim != 2:
            raise InputError(f"an output {logits.shape} has no classes: (N, classes) is wanted")
        return jnp.mean(ops.softmax_cross_entropy(logits, resolve_target(logits, labels)))

    return jax.grad(loss)(params)


def _norm(array: jax.Array) -> jax.Array:
    """Scaled before it is squared: squares of gradients that vanish are 0 in float32."""
    largest = jnp.max(jnp.abs(array))
    scale = jnp.where(largest > 0, largest, 1).astype(array.dtype)
    return scale * jnp.sqrt(jnp.sum((array / scale) ** 2))
