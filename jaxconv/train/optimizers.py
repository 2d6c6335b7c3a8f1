"""Optimizers and learning-rate schedules of optax by name, and the call of an optimizer in a step."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxconv import checks
from jaxconv.errors import InputError, error_context


def kernel_mask(params: Any) -> Any:
    """Which parameters are kernels: True for those with two axes or more that are no bias and no norm's scale.

    >>> import jax.numpy as jnp
    >>> kernel_mask({"conv1": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.zeros(8)}, "bn1": {"scale": jnp.ones(8)}})
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

    return jax.tree.map(matrix, params, kernel_mask(params))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": partial(optax.adamw, mask=kernel_mask),
    # Keras's form, which the lecture uses: g · lr / √(v + ε). PyTorch has ε outside the root.
    "rmsprop": partial(optax.rmsprop, decay=0.9, eps=1e-7, eps_in_sqrt=True),
    "lion": partial(optax.lion, mask=kernel_mask),
    # Steps as large as Adam's (Liu et al., 2025): the kernels share a learning rate with the rest, which Adam takes.
    "muon": partial(optax.contrib.muon, muon_weight_dimension_numbers=_matrices, consistent_rms=0.2),
}
DECOUPLED = ("adamw", "lion", "muon")  # the decay is beside the step, not in the gradient


def make_optimizer(
    name: str = "adam",
    learning_rate: float = 1e-3,
    schedule: str = "constant",
    total_steps: int = 1,
    *,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
    """An optax optimiser whose learning rate follows a schedule.

    First ``g ← g · min(1, max_grad_norm / ‖g‖)``, the norm being that of all gradients together. Then the kernels
    decay: ``g ← g + weight_decay · w`` in sgd, momentum, nesterov, adam and rmsprop, before the gradient is averaged;
    ``w ← w − rate · (u + weight_decay · w)`` in adamw, lion and muon, beside the step u (Loshchilov and Hutter, 2019).
    Biases and the scales of norms never decay. Without decay, adamw is adam.

    muon is a method for matrices, so a convolution's kernel counts as the matrix ``(window · C // groups, O)``: one
    column a filter. Biases and scales go to adam with Nesterov's momentum (Dozat, 2016), at the same learning rate.

    Args:
        name: a key of ``OPTIMIZERS``.
        learning_rate: its highest value.
        schedule: a key of ``SCHEDULES``: how it changes from the first step to the last.
        total_steps: how many steps there will be.
        warmup_steps: how many of them the learning rate rises in before: see :func:`make_schedule`.
        weight_decay: how fast unused weights go to zero; 1e-4 to 5e-4 in the gradient, 1e-2 to 0.1 beside the step.
        max_grad_norm: the longest that a gradient may be; None: any.

    Raises:
        InputError: an unknown name, or a number that the formulas have no use for.

    >>> make_optimizer("adan")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown optimizer 'adan': did you mean 'adam'? Known: sgd, momentum, nesterov, adam, \
adamw, rmsprop, lion, muon
    """
    checks.one_of("optimizer", name, OPTIMIZERS)
    rate = make_schedule(schedule, learning_rate, total_steps, warmup_steps=warmup_steps)
    if not checks.is_number(weight_decay) or not 0 <= weight_decay < float("inf"):
        raise InputError(f"weight_decay={weight_decay!r} should be a number of at least 0, such as 0.0005")
    if max_grad_norm is not None and (not checks.is_number(max_grad_norm) or not 0 < max_grad_norm < float("inf")):
        raise InputError(f"max_grad_norm={max_grad_norm!r} should be a positive number, such as 1.0, or None")
    parts = [] if max_grad_norm is None else [optax.clip_by_global_norm(max_grad_norm)]
    if name in DECOUPLED:
        return optax.chain(*parts, OPTIMIZERS[name](rate, weight_decay=weight_decay))
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, kernel_mask))
    return optax.chain(*parts, OPTIMIZERS[name](rate))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
    # Up from a 25th of the peak in the first 30 %, then down to almost nothing (Smith, 2018). Below 4 steps: only down.
    "one_cycle": lambda peak, steps: optax.cosine_onecycle_schedule(steps, peak),
    # A tenth from half of the steps on, a hundredth from three quarters (He et al., 2015, section 4.2).
    "step": lambda peak, steps: optax.join_schedules(
        [optax.constant_schedule(peak * factor) for factor in (1, 0.1, 0.01)], [-(-steps // 2), -(-3 * steps // 4)]
    ),
}


def make_schedule(name: str, peak_value: float, total_steps: int, *, warmup_steps: int = 0) -> optax.Schedule:
    """The learning rate of a step as a function of its number: ``schedule(0)`` is the first step's.

    ``rate[t] = t / warmup · s(0)`` while ``t < warmup``, then ``s(t − warmup)``, where ``s`` is the named schedule of
    the ``steps − warmup`` steps that are left.

    Args:
        name: a key of ``SCHEDULES``.
        peak_value: the highest learning rate.
        total_steps: how many there will be.
        warmup_steps: how many of them come before the schedule and go up from 0 to its first value in a line (Goyal et
            al., 2017). one_cycle starts at a 25th of the peak and has a rise of its own: it needs no other.

    Raises:
        InputError: an unknown name, a peak that is not positive, or a warm-up that leaves no step.

    >>> schedule = make_schedule("step", 0.1, 10, warmup_steps=2)
    >>> [round(float(schedule(step)), 4) for step in range(10)]
    [0.0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """
    checks.one_of("schedule", name, SCHEDULES)
    if not checks.is_number(peak_value) or not 1e-30 < peak_value < 1e30:  # in float32 it would be 0, or no number
        raise InputError(f"learning_rate={peak_value!r} should be a positive number, such as 0.001")
    with error_context("schedule"):
        checks.at_least(1, total_steps=total_steps)
        checks.at_least(0, warmup_steps=warmup_steps)
    if total_steps >= 2**31:
        raise InputError(f"{total_steps:,} steps are more than can be counted; take fewer epochs or larger batches")
    if warmup_steps >= total_steps:
        raise InputError(
            f"warmup_steps={warmup_steps} leaves nothing of {total_steps} steps to the schedule; "
            "take less, or more epochs"
        )
    schedule = SCHEDULES[name](peak_value, total_steps - warmup_steps)
    if not warmup_steps:
        return schedule
    return optax.join_schedules(
        [optax.linear_schedule(0.0, float(schedule(0)), warmup_steps), schedule], [warmup_steps]
    )


GIVEN = ("value", "grad", "value_fn")  # to an optimiser that takes more than gradients


def is_floating(array: Any) -> bool:
    """Return whether an array holds floating numbers: keys, flags and counters do not."""
    return jnp.issubdtype(_dtype(array), jnp.floating)


def _dtype(array: Any) -> Any:
    return array.dtype if hasattr(array, "dtype") else jnp.result_type(array)


def check_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimiser of optax.

    >>> check_optimizer("adam")
    Traceback (most recent call last):
    jaxconv.errors.InputError: optimizer='adam' is a name: give the optimiser, optax.adam(1e-3), or \
jaxconv.train.make_optimizer('adam')
    """
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    if isinstance(optimizer, str):
        name = optimizer if hasattr(optax, optimizer) else "adam"
        use = f"give the optimiser, optax.{name}(1e-3), or jaxconv.train.make_optimizer({name!r})"
        raise InputError(f"optimizer={optimizer!r} is a name: {use}")
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    if callable(optimizer) and str(getattr(optimizer, "__module__", "")).partition(".")[0] == "optax":
        raise InputError(f"optimizer={name} makes an optimiser and is not one itself: call it, optax.{name}(1e-3)")
    raise InputError(f"optimizer={name} should be an optimiser of optax, such as optax.adam(1e-3)")


def check_params(params: Any) -> None:
    """Refuse parameters that have no gradient."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(_dtype(leaf), jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"the parameter {name} is {_dtype(leaf)}, which has no gradient: keep it in state"
            ).from_source("train step")


def update(
    optimizer: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
) -> tuple[Any, Any]:
    """Return the optimiser's updates and its new state.

    Args:
        optimizer: of optax. One that takes more than gradients is given all of ``GIVEN``.
        grads: the gradient at ``params``.
        opt_state, params: the optimiser's state and the parameters.
        value: the loss at ``params``.
        value_fn: the loss of the same batch at any parameters.

    Raises:
        InputError: an optimiser that takes something else.
    """
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs | optax.MultiSteps):
        return optimizer.update(grads, opt_state, params)
    given = dict(zip(GIVEN, (value, grads, value_fn), strict=True))
    takes = inspect.signature(optimizer.update).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in takes):
        given = {p.name: given[p.name] for p in takes if p.name in given}
    try:
        return optimizer.update(grads, opt_state, params, **given)
    except TypeError as error:
        if "keyword-only argument" not in str(error):
            raise
        raise InputError(
            f"the optimizer takes {str(error).rpartition(': ')[2]}, which the step does not give; "
            f"it gives {', '.join(GIVEN)}"
        ).from_source("train step") from error
