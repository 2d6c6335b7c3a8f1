"""The race: everyone gets ready, one after the other, and then they take turns."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol, TypeVar

from benchmarks.process import WorkerFailed, WorkerProcess
from jaxconv.bench.step_timing import MIN_ROUND_SECONDS
from jaxconv.utils.timing import MOST, calls_of_turn

WARMUP_STEPS = 3  # before anything counts, to see how long one takes


class Named(Protocol):
    """What is timed has a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Timings(NamedTuple):
    """What a contestant needed.

    Attributes:
        seconds: of a step, in every round.
        first_step_s: of the first call, with compilation.
    """

    seconds: list[float]
    first_step_s: float


class _Worker(NamedTuple):
    process: WorkerProcess
    steps: int  # of a turn
    measured: Timings


def run_interleaved(
    targets: Sequence[T],
    start: Callable[[T], WorkerProcess],
    *,
    rounds: int,
    on_failure: Callable[[T, str], None],
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Timings]:
    """Time the steps of all, A B A B, with one at work at any time.

    Args:
        targets: in the order of their turns.
        start: makes the process of one.
        rounds: how many turns each has.
        on_failure: told who takes no further part, and why. Whoever is lost has no numbers.
        progress: told what is going on.

    Returns:
        What was measured, by the contestant's name.
    """
    racers: dict[str, _Worker] = {}
    named = {contestant.name: contestant for contestant in targets}
    with ExitStack() as stack:
        for name, contestant in named.items():
            progress(f"{name} gets ready")
            process = stack.enter_context(start(contestant))
            try:
                racers[name] = _ready(process)
            except WorkerFailed as why:
                process.close()
                on_failure(contestant, str(why))
        for number in range(1, rounds + 1):
            for name, racer in list(racers.items()):
                progress(f"round {number} of {rounds}: {name}")
                try:
                    racer.measured.seconds.append(racer.process.run(racer.steps) / racer.steps)
                except WorkerFailed as why:
                    del racers[name]
                    racer.process.close()
                    on_failure(named[name], str(why))
    return {name: racer.measured for name, racer in racers.items()}


def _ready(process: WorkerProcess) -> _Worker:
    ready = process.read_reply("getting ready")
    chunk = int(ready["chunk"])
    glance = warmup_steps(chunk)
    return _Worker(
        process, steps_of_round(process.run(glance) / glance, chunk), Timings([], float(ready["first_step_s"]))
    )


def warmup_steps(chunk: int) -> int:
    """Steps before anything counts: whole chunks.

    >>> warmup_steps(1), warmup_steps(2), warmup_steps(32)
    (3, 4, 32)
    """
    return math.ceil(WARMUP_STEPS / chunk) * chunk


def steps_of_round(seconds: float, chunk: int = 1) -> int:
    """Number of steps in a round, if a step takes this many seconds and ``chunk`` steps are one call.

    >>> [steps_of_round(s) for s in (0.02, 0.001, 2.0)], steps_of_round(0.02, chunk=10), steps_of_round(0.001, chunk=32)
    ([15, 50, 1], 20, 32)
    """
    return chunk * max(1, min(calls_of_turn(seconds * chunk, MIN_ROUND_SECONDS), MOST // chunk))
