"""Optimizers and learning-rate schedules of optax by name, and the optimizer call of a train step."""

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
    """Return a mask of the kernels: True for parameters with at least two axes that are not a bias or scale.

    >>> import jax.numpy as jnp
    >>> kernel_mask({"conv1": {"kernel": jnp.ones((3, 3, 1, 8)), "bias": jnp.zeros(8)}, "bn1": {"scale": jnp.ones(8)}})
    {'bn1': {'scale': False}, 'conv1': {'bias': False, 'kernel': True}}
    """

    def is_kernel(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim > 1 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _muon_dimension_numbers(params: Any) -> Any:
    """Return muon's view of each kernel ``(*window, C // groups, O)`` as a matrix with one column per filter."""

    def dimension_numbers(leaf: jax.Array, is_kernel: bool) -> optax.contrib.MuonDimensionNumbers | None:
        output_axis = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(output_axis)), output_axis) if is_kernel else None

    return jax.tree.map(dimension_numbers, params, kernel_mask(params))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": partial(optax.adamw, mask=kernel_mask),
    # Keras's formula, as in the lecture: g · lr / √(v + ε). In PyTorch ε is outside the square root.
    "rmsprop": partial(optax.rmsprop, decay=0.9, eps=1e-7, eps_in_sqrt=True),
    "lion": partial(optax.lion, mask=kernel_mask),
    # consistent_rms: steps as large as Adam's (Liu et al., 2025), which updates the other parameters at the same rate.
    "muon": partial(optax.contrib.muon, muon_weight_dimension_numbers=_muon_dimension_numbers, consistent_rms=0.2),
}
DECOUPLED = ("adamw", "lion", "muon")  # decoupled weight decay: added to the update, not to the gradient


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
    """Return an optax optimizer with a learning-rate schedule, gradient clipping and weight decay of the kernels.

    Clipping: ``g ← g · min(1, max_grad_norm / ‖g‖)``, with the global norm over all gradients. Weight decay:
    ``g ← g + weight_decay · w`` in sgd, momentum, nesterov, adam and rmsprop, before the moving averages;
    ``w ← w − rate · (u + weight_decay · w)`` in adamw, lion and muon, decoupled from the update u (Loshchilov and
    Hutter, 2019). Biases and the scales of normalization never decay. Without weight decay, adamw is adam.

    muon updates matrices, so a convolution kernel is reshaped to ``(window · C // groups, O)``, one column per filter.
    Biases and scales are updated by adam with Nesterov momentum (Dozat, 2016), at the same learning rate.

    Args:
        name: a key of ``OPTIMIZERS``.
        learning_rate: peak value of the schedule.
        schedule: a key of ``SCHEDULES``.
        total_steps: number of training steps.
        warmup_steps: number of steps of linear warm-up at the start: see :func:`make_schedule`.
        weight_decay: coefficient; typically 1e-4 to 5e-4 in the gradient, 1e-2 to 0.1 if decoupled.
        max_grad_norm: maximum global norm of the gradient; None: no clipping.

    Raises:
        InputError: if a name is unknown, or a number is out of range.

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
    transforms = [] if max_grad_norm is None else [optax.clip_by_global_norm(max_grad_norm)]
    if name in DECOUPLED:
        return optax.chain(*transforms, OPTIMIZERS[name](rate, weight_decay=weight_decay))
    if weight_decay:
        transforms.append(optax.add_decayed_weights(weight_decay, kernel_mask))
    return optax.chain(*transforms, OPTIMIZERS[name](rate))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
    # Up from 1/25 of the peak in the first 30 %, then down to nearly 0 (Smith, 2018); only down if below 4 steps.
    "one_cycle": lambda peak, steps: optax.cosine_onecycle_schedule(steps, peak),
    # 1/10 of the peak after half of the steps, 1/100 after three quarters (He et al., 2015, section 4.2).
    "step": lambda peak, steps: optax.join_schedules(
        [optax.constant_schedule(peak * factor) for factor in (1, 0.1, 0.01)], [-(-steps // 2), -(-3 * steps // 4)]
    ),
}


def make_schedule(name: str, peak_value: float, total_steps: int, *, warmup_steps: int = 0) -> optax.Schedule:
    """Return a learning-rate schedule, a function of the step number; ``schedule(0)`` is the rate of the first step.

    ``rate[t] = t / warmup · s(0)`` while ``t < warmup``, then ``s(t − warmup)``, where ``s`` is the named schedule over
    the remaining ``steps − warmup`` steps.

    Args:
        name: a key of ``SCHEDULES``.
        peak_value: maximum learning rate.
        total_steps: number of training steps.
        warmup_steps: number of steps of linear warm-up, from 0 to the first value of the schedule (Goyal et al., 2017).
            one_cycle includes its own warm-up, from 1/25 of the peak.

    Raises:
        InputError: if the name is unknown, ``peak_value`` is not positive, or ``warmup_steps >= total_steps``.

    >>> schedule = make_schedule("step", 0.1, 10, warmup_steps=2)
    >>> [round(float(schedule(step)), 4) for step in range(10)]
    [0.0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """
    checks.one_of("schedule", name, SCHEDULES)
    if not checks.is_number(peak_value) or not 1e-30 < peak_value < 1e30:  # else it is 0 or inf in float32
        raise InputError(f"learning_rate={peak_value!r} should be a positive number, such as 0.001")
    with error_context("schedule"):
        checks.at_least(1, total_steps=total_steps)
        checks.at_least(0, warmup_steps=warmup_steps)
    if total_steps >= 2**31:
        raise InputError(f"{total_steps:,} steps overflow the int32 step counter; use fewer epochs or larger batches")
    if warmup_steps >= total_steps:
        raise InputError(
            f"warmup_steps={warmup_steps} must be less than the total of {total_steps} steps; use fewer, or more epochs"
        )
    schedule = SCHEDULES[name](peak_value, total_steps - warmup_steps)
    if not warmup_steps:
        return schedule
    return optax.join_schedules(
        [optax.linear_schedule(0.0, float(schedule(0)), warmup_steps), schedule], [warmup_steps]
    )


EXTRA_ARGS = ("value", "grad", "value_fn")  # passed to a GradientTransformationExtraArgs


def is_floating(array: Any) -> bool:
    """Return True for an array of floats; keys, flags and counters are not."""
    return jnp.issubdtype(_dtype(array), jnp.floating)


def _dtype(array: Any) -> Any:
    return array.dtype if hasattr(array, "dtype") else jnp.result_type(array)


def check_optimizer(optimizer: Any) -> None:
    """Raise InputError unless the argument is an optax optimizer.

    >>> check_optimizer("adam")
    Traceback (most recent call last):
    jaxconv.errors.InputError: optimizer='adam' must be an optimizer, not a name: use optax.adam(1e-3), or \
jaxconv.train.make_optimizer('adam')
    """
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    if isinstance(optimizer, str):
        name = optimizer if hasattr(optax, optimizer) else "adam"
        suggestion = f"use optax.{name}(1e-3), or jaxconv.train.make_optimizer({name!r})"
        raise InputError(f"optimizer={optimizer!r} must be an optimizer, not a name: {suggestion}")
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    if callable(optimizer) and str(getattr(optimizer, "__module__", "")).partition(".")[0] == "optax":
        raise InputError(f"optimizer={name} is a function that returns an optimizer: call it, optax.{name}(1e-3)")
    raise InputError(f"optimizer={name} should be an optax optimizer, such as optax.adam(1e-3)")


def check_params(params: Any) -> None:
    """Raise InputError unless all parameters are floating or complex."""
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
    """Return the optimizer's updates and its new state.

    Args:
        optimizer: optax optimizer. One with extra arguments gets those of ``EXTRA_ARGS`` that it accepts.
        grads: gradient at ``params``.
        opt_state, params: the optimizer's state and the parameters.
        value: loss at ``params``.
        value_fn: function from parameters to the loss of the same batch.

    Raises:
        InputError: if the optimizer requires other arguments.
    """
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs | optax.MultiSteps):
        return optimizer.update(grads, opt_state, params)
    extra_args = dict(zip(EXTRA_ARGS, (value, grads, value_fn), strict=True))
    parameters = inspect.signature(optimizer.update).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        extra_args = {p.name: extra_args[p.name] for p in parameters if p.name in extra_args}
    try:
        return optimizer.update(grads, opt_state, params, **extra_args)
    except TypeError as error:
        if "keyword-only argument" not in str(error):
            raise
        raise InputError(
            f"the optimizer requires {str(error).rpartition(': ')[2]}, which the step does not provide; "
            f"it provides {', '.join(EXTRA_ARGS)}"
        ).from_source("train step") from error
