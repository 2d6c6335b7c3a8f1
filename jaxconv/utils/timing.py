"""Time functions in interleaved rounds, so that background load affects all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax

Key = TypeVar("Key", bound=Hashable)
MOST = 50  # limit of calls per measurement


def in_turns(
    runs: Mapping[Key, Callable[[], Any]],
    *,
    repeats: int,
    least: float = 0.0,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[Key, list[float]]:
    """Time several functions in interleaved rounds; return the seconds per call of each function and round.

    Each function is called once before timing, to compile it. The time includes ``block_until_ready``, since jax
    dispatches asynchronously.

    Args:
        runs: functions by name.
        repeats: number of rounds.
        least: minimum seconds of a measurement; a faster function is called several times per measurement, and the
            mean counts.
        progress: function that is called with a line of text per step.

    >>> {name: len(seconds) for name, seconds in in_turns({"a": lambda: 1, "b": lambda: 2}, repeats=3).items()}
    {'a': 3, 'b': 3}
    """
    calls = {}
    for i, (key, run) in enumerate(runs.items(), start=1):
        progress(f"compiling {i} of {len(runs)}")
        jax.block_until_ready(run())
        calls[key] = calls_of_turn(_seconds(run, 1), least) if least else 1
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for i in range(repeats):
        progress(f"timing, round {i + 1} of {repeats}")
        for key, run in runs.items():
            seconds[key].append(_seconds(run, calls[key]))
    return seconds


def medians(
    runs: Mapping[Key, Callable[[], Any]], *, repeats: int, progress: Callable[[str], None] = lambda message: None
) -> dict[Key, float]:
    """Return the median seconds per call of each function, timed by :func:`in_turns`.

    >>> sorted(medians({"a": lambda: 1, "b": lambda: 2}, repeats=3))
    ['a', 'b']
    """
    timings = in_turns(runs, repeats=repeats, progress=progress)
    return {key: statistics.median(seconds) for key, seconds in timings.items()}


def calls_of_turn(seconds: float, least: float) -> int:
    """Return the number of calls of ``seconds`` each that last at least ``least`` seconds, at most ``MOST``.

    >>> calls_of_turn(0.02, 0.3), calls_of_turn(0.001, 0.3), calls_of_turn(2.0, 0.3)
    (15, 50, 1)
    """
    return max(1, min(MOST, math.ceil(least / max(seconds, 1e-9))))


def _seconds(run: Callable[[], Any], calls: int) -> float:
    """Return the mean seconds of ``calls`` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / calls
