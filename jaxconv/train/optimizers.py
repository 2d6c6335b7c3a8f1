"""optax's optimisers and schedules, by name."""

from collections.abc import Callable
from functools import partial

import optax

from jaxconv.errors import InputError, known

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    # Keras's form, which the lecture uses: g · lr / √(v + ε). PyTorch has ε outside the root.
    "rmsprop": partial(optax.rmsprop, decay=0.9, eps=1e-7, eps_in_sqrt=True),
}
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
    # Up from a 25th of the peak in the first third, then down to almost nothing (Smith, 2018).
    "one_cycle": lambda peak, steps: optax.cosine_onecycle_schedule(steps, peak),
}


def make_optimizer(
    name: str = "adam", learning_rate: float = 1e-3, schedule: str = "constant", steps: int = 1
) -> optax.GradientTransformation:
    """An optax optimiser whose learning rate follows a schedule.

    Args:
        name: a key of ``OPTIMIZERS``.
        learning_rate: its highest value.
        schedule: a key of ``SCHEDULES``: how it changes from the first step to the last.
        steps: how many steps there will be.

    Raises:
        InputError: an unknown name, or a learning rate that is not positive.

    >>> make_optimizer("adan")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown optimizer 'adan': did you mean 'adam'? Known: sgd, momentum, nesterov, adam, \
adamw, rmsprop
    """
    known("optimizer", name, OPTIMIZERS)
    known("schedule", schedule, SCHEDULES)
    if not 0 < steps < 2**31:
        raise InputError(f"{steps:,} steps are more than can be counted; take fewer epochs or larger batches")
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate={learning_rate} should be a positive number, such as 0.001")
    return OPTIMIZERS[name](SCHEDULES[schedule](learning_rate, steps))
