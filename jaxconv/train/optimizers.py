"""optax's optimisers, by name: the gradient is clipped, the kernels decay, the learning rate follows a schedule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from jaxconv import checks
from jaxconv.errors import InputError, known
from jaxconv.train.schedules import make_schedule


def kernels(params: Any) -> Any:
    """Which parameters are kernels: True for those with two axes or more that are no bias and no norm's scale.

    >>> import jax.numpy as jnp
    >>> kernels({"conv1": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.zeros(8)}, "bn1": {"scale": jnp.ones(8)}})
    {'bn1': {'scale': False}, 'conv1': {'bias': False, 'kernel': True}}
    """

    def is_kernel(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim > 1 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _matrices(params: Any) -> Any:
    """Every kernel ``(*window, C // groups, O)`` as a matrix of as many columns as filters, for muon."""

    def matrix(leaf: jax.Array, is_kernel: bool) -> optax.contrib.MuonDimensionNumbers | None:
        filters = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(filters)), filters) if is_kernel else None

    return jax.tree.map(matrix, params, kernels(params))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": partial(optax.adamw, mask=kernels),
    # Keras's form, which the lecture uses: g · lr / √(v + ε). PyTorch has ε outside the root.
    "rmsprop": partial(optax.rmsprop, decay=0.9, eps=1e-7, eps_in_sqrt=True),
    "lion": partial(optax.lion, mask=kernels),
    # Steps as large as Adam's (Liu et al., 2025): the kernels share a learning rate with the rest, which Adam takes.
    "muon": partial(optax.contrib.muon, muon_weight_dimension_numbers=_matrices, consistent_rms=0.2),
}
DECOUPLED = ("adamw", "lion", "muon")  # the decay is beside the step, not in the gradient


def make_optimizer(
    name: str = "adam",
    learning_rate: float = 1e-3,
    schedule: str = "constant",
    steps: int = 1,
    *,
    warmup: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """An optax optimiser whose learning rate follows a schedule.

    First ``g ← g · min(1, clip_norm / ‖g‖)``, the norm being that of all gradients together. Then the kernels decay:
    ``g ← g + weight_decay · w`` in sgd, momentum, nesterov, adam and rmsprop, before the gradient is averaged;
    ``w ← w − rate · (u + weight_decay · w)`` in adamw, lion and muon, beside the step u (Loshchilov and Hutter, 2019).
    Biases and the scales of norms never decay. Without decay, adamw is adam.

    muon is a method for matrices, so a convolution's kernel counts as the matrix ``(window · C // groups, O)``: one
    column a filter. Biases and scales go to adam with Nesterov's momentum (Dozat, 2016), at the same learning rate.

    Args:
        name: a key of ``OPTIMIZERS``.
        learning_rate: its highest value.
        schedule: a key of ``SCHEDULES``: how it changes from the first step to the last.
        steps: how many steps there will be.
        warmup: how many of them the learning rate rises in before: see :func:`make_schedule`.
        weight_decay: how fast unused weights go to zero; 1e-4 to 5e-4 in the gradient, 1e-2 to 0.1 beside the step.
        clip_norm: the longest that a gradient may be; None: any.

    Raises:
        InputError: an unknown name, or a number that the formulas have no use for.

    >>> make_optimizer("adan")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown optimizer 'adan': did you mean 'adam'? Known: sgd, momentum, nesterov, adam, \
adamw, rmsprop, lion, muon
    """
    known("optimizer", name, OPTIMIZERS)
    rate = make_schedule(schedule, learning_rate, steps, warmup=warmup)
    if not checks.is_number(weight_decay) or not 0 <= weight_decay < float("inf"):
        raise InputError(f"weight_decay={weight_decay!r} should be a number of at least 0, such as 0.0005")
    if clip_norm is not None and (not checks.is_number(clip_norm) or not 0 < clip_norm < float("inf")):
        raise InputError(f"clip_norm={clip_norm!r} should be a positive number, such as 1.0, or None")
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if name in DECOUPLED:
        return optax.chain(*parts, OPTIMIZERS[name](rate, weight_decay=weight_decay))
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, kernels))
    return optax.chain(*parts, OPTIMIZERS[name](rate))
