"""Start every worker, then time them in interleaved rounds."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol, TypeVar

from benchmarks.process import WorkerFailed, WorkerProcess
from jaxconv.bench.step_timing import MIN_ROUND_SECONDS
from jaxconv.utils.timing import MOST, calls_of_turn

WARMUP_STEPS = 3  # untimed steps that estimate the time of a step


class Named(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Timings(NamedTuple):
    """Measured times of a target.

    Attributes:
        seconds: seconds per step in every round.
        first_step_s: seconds of the first call, with compilation.
    """

    seconds: list[float]
    first_step_s: float


class _Worker(NamedTuple):
    process: WorkerProcess
    steps: int  # per round
    timings: Timings


def run_interleaved(
    targets: Sequence[T],
    start: Callable[[T], WorkerProcess],
    *,
    rounds: int,
    on_failure: Callable[[T, str], None],
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, Timings]:
    """Time the steps of all targets in interleaved rounds (A B A B), one target at a time.

    Args:
        targets: targets in the order of their turns.
        start: function that starts the process of a target.
        rounds: number of rounds.
        on_failure: called with a target that failed, and the reason. Failed targets have no timings.
        progress: called with a description of the current stage.

    Returns:
        The timings by the name of the target.
    """
    workers: dict[str, _Worker] = {}
    by_name = {target.name: target for target in targets}
    with ExitStack() as stack:
        for name, target in by_name.items():
            progress(f"starting {name}")
            process = stack.enter_context(start(target))
            try:
                workers[name] = _wait_until_ready(process)
            except WorkerFailed as error:
                process.close()
                on_failure(target, str(error))
        for index in range(1, rounds + 1):
            for name, worker in list(workers.items()):
                progress(f"round {index} of {rounds}: {name}")
                try:
                    worker.timings.seconds.append(worker.process.run(worker.steps) / worker.steps)
                except WorkerFailed as error:
                    del workers[name]
                    worker.process.close()
                    on_failure(by_name[name], str(error))
    return {name: worker.timings for name, worker in workers.items()}


def _wait_until_ready(process: WorkerProcess) -> _Worker:
    ready = process.read_reply("startup")
    chunk = int(ready["chunk"])
    num_warmup = warmup_steps(chunk)
    return _Worker(
        process, steps_of_round(process.run(num_warmup) / num_warmup, chunk), Timings([], float(ready["first_step_s"]))
    )


def warmup_steps(chunk: int) -> int:
    """Return the number of untimed steps, a multiple of ``chunk``.

    >>> warmup_steps(1), warmup_steps(2), warmup_steps(32)
    (3, 4, 32)
    """
    return math.ceil(WARMUP_STEPS / chunk) * chunk


def steps_of_round(seconds: float, chunk: int = 1) -> int:
    """Return the number of steps in a round, if a step takes ``seconds`` and a call runs ``chunk`` steps.

    >>> [steps_of_round(s) for s in (0.02, 0.001, 2.0)], steps_of_round(0.02, chunk=10), steps_of_round(0.001, chunk=32)
    ([15, 50, 1], 20, 32)
    """
    return chunk * max(1, min(calls_of_turn(seconds * chunk, MIN_ROUND_SECONDS), MOST // chunk))
