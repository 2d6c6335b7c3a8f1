"""How long things take, on machines that are never quiet."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax

Key = TypeVar("Key", bound=Hashable)


def medians(
    runs: Mapping[Key, Callable[[], Any]], *, repeats: int, progress: Callable[[str], None] = lambda what: None
) -> dict[Key, float]:
    """The median seconds of each of some calls, which take turns, so that a slow moment of the machine meets them all.

    Each is called once before the clock runs, which compiles it, and is waited for: jax returns before it is done.

    >>> sorted(medians({"a": lambda: 1, "b": lambda: 2}, repeats=3))
    ['a', 'b']
    """
    for i, run in enumerate(runs.values(), start=1):
        progress(f"compiling {i} of {len(runs)}")
        jax.block_until_ready(run())
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for i in range(repeats):
        progress(f"timing, round {i + 1} of {repeats}")
        for key, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[key].append(time.perf_counter() - start)
    return {key: statistics.median(measured) for key, measured in seconds.items()}
