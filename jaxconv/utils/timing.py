"""How long things take, on machines that are never quiet."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax

Key = TypeVar("Key", bound=Hashable)
MOST = 50  # calls of a turn


def in_turns(
    runs: Mapping[Key, Callable[[], Any]],
    *,
    repeats: int,
    least: float = 0.0,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[Key, list[float]]:
    """The seconds of each of some calls, round by round: they take turns, so that a slow moment meets them all.

    Each is called before the clock runs, which compiles it, and is waited for: jax returns before it is done.

    Args:
        runs: the calls, by name.
        repeats: how many rounds.
        least: seconds of a turn. What takes less is called several times in it, and one call's share counts.
        progress: told what is going on.

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
    runs: Mapping[Key, Callable[[], Any]], *, repeats: int, progress: Callable[[str], None] = lambda what: None
) -> dict[Key, float]:
    """The median seconds of each of some calls, which take turns, as :func:`in_turns` has them.

    >>> sorted(medians({"a": lambda: 1, "b": lambda: 2}, repeats=3))
    ['a', 'b']
    """
    measured = in_turns(runs, repeats=repeats, progress=progress)
    return {key: statistics.median(seconds) for key, seconds in measured.items()}


def calls_of_turn(seconds: float, least: float) -> int:
    """How many calls of so many seconds make a turn of at least so many, within reason.

    >>> calls_of_turn(0.02, 0.3), calls_of_turn(0.001, 0.3), calls_of_turn(2.0, 0.3)
    (15, 50, 1)
    """
    return max(1, min(MOST, math.ceil(least / max(seconds, 1e-9))))


def _seconds(run: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - started) / calls
