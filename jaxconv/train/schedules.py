"""How the learning rate changes from the first step of a run to the last, by name: optax's schedules."""

from collections.abc import Callable

import optax

from jaxconv import checks
from jaxconv.errors import InputError, known

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


def make_schedule(name: str, peak: float, steps: int, *, warmup: int = 0) -> optax.Schedule:
    """The learning rate of a step as a function of its number: ``schedule(0)`` is the first step's.

    ``rate[t] = t / warmup · s(0)`` while ``t < warmup``, then ``s(t − warmup)``, where ``s`` is the named schedule of
    the ``steps − warmup`` steps that are left.

    Args:
        name: a key of ``SCHEDULES``.
        peak: the highest learning rate.
        steps: how many there will be.
        warmup: how many of them come before the schedule and go up from 0 to its first value in a line (Goyal et al.,
            2017). one_cycle starts at a 25th of the peak and has a rise of its own: it needs no other.

    Raises:
        InputError: an unknown name, a peak that is not positive, or a warm-up that leaves no step.

    >>> schedule = make_schedule("step", 0.1, 10, warmup=2)
    >>> [round(float(schedule(step)), 4) for step in range(10)]
    [0.0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """
    known("schedule", name, SCHEDULES)
    if not checks.is_number(peak) or not 1e-30 < peak < 1e30:  # in float32 it would be 0, or no number
        raise InputError(f"learning_rate={peak!r} should be a positive number, such as 0.001")
    checks.whole("schedule", 1, steps=steps)
    checks.whole("schedule", 0, warmup=warmup)
    if steps >= 2**31:
        raise InputError(f"{steps:,} steps are more than can be counted; take fewer epochs or larger batches")
    if warmup >= steps:
        raise InputError(f"warmup={warmup} leaves nothing of {steps} steps to the schedule; take less, or more epochs")
    schedule = SCHEDULES[name](peak, steps - warmup)
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, float(schedule(0)), warmup), schedule], [warmup])
