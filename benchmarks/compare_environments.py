"""Time the same training steps in several Python environments, in turns: two versions of jax, two sets of XLA's flags.

Each environment is a name and the command that starts its Python, with what ``env`` may set for it::

    python -m benchmarks.compare_environments old=/venvs/jax-0.10.2/bin/python new=/venvs/jax-0.12/bin/python
    python -m benchmarks.compare_environments new=venv/bin/python \\
        avx2="env XLA_FLAGS=--xla_cpu_max_isa=AVX2 venv/bin/python" --models mnist_cnn

jaxconv has to be installed in all of them; a framework of ``--frameworks`` that one of them lacks is left out there.
Times are of one training step (forward, backward, Adam), medians over rounds in which all take turns, each in a process
of its own. A ratio to the first environment is the median of the ratios of the same round, so that a slow moment
divides out.
"""

import dataclasses
import json
import shlex
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console

from benchmarks import interleave, process, targets
from benchmarks.targets import Target
from jaxconv.bench import step_timing
from jaxconv.bench.step_timing import JAXCONV, batch_of
from jaxconv.errors import InputError
from jaxconv.utils.files import write_json
from jaxconv.utils.tables import as_text, new_table

VERSIONS = (
    "import json, jax, jaxlib, platform; "
    "print(json.dumps({'python': platform.python_version(), 'jax': jax.__version__, 'jaxlib': jaxlib.__version__}))"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the same training steps in several Python environments, in turns."""

    environments: Annotated[tuple[str, ...], tyro.conf.Positional]
    """NAME=COMMAND, where the command starts a Python; the first one is what the others are compared with."""
    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Networks, by name."""
    frameworks: tuple[str, ...] = ()
    """Other libraries to time in every environment that has them: those of jaxconv bench, or all."""
    mode: str = "epoch"
    """How jaxconv trains: epoch, as jaxconv.train.fit does, or step, one call a step."""
    rounds: int = 9
    """Turns of each."""
    timeout: float = 300.0
    """Seconds to wait for any answer."""
    json: Path | None = None
    """Also write what was measured to this file."""


class Entry(NamedTuple):
    """One way to train in one environment."""

    environment: str
    command: tuple[str, ...]
    contestant: Target

    @property
    def name(self) -> str:
        return f"{self.environment}, {self.contestant.name}"


def main(options: Options) -> None:
    environments = read_environments(options.environments)
    versions = {name: ask_versions(name, command) for name, command in environments.items()}
    for name, numbers in versions.items():
        print(f"{name}: {', '.join(f'{package} {number}' for package, number in numbers.items())}", flush=True)
    if busy := step_timing.busy_warning():
        print(busy, flush=True)
    entries = [
        Entry(name, command, contestant)
        for name, command in environments.items()
        for contestant in targets.select_targets(options.frameworks)
        if (contestant.framework != JAXCONV or contestant.mode == options.mode)
        and installed(command, contestant.package)
    ]
    results: dict[str, dict[str, list[float]]] = {}
    with Console(stderr=True).status("starting") as status:
        for model in options.models:
            measured = interleave.run_interleaved(
                entries,
                partial(start, model=model, timeout=options.timeout),
                rounds=options.rounds,
                on_failure=skipped,
                progress=lambda step, model=model: status.update(f"{model}: {step}"),  # type: ignore[misc]
            )
            results[model] = {name: times.seconds for name, times in measured.items()}
            if measured:
                print(table(model, results[model]), flush=True)
    if not any(results.values()):
        raise InputError("compare_environments: none of them could be timed; the lines above say why")
    if options.json:
        milliseconds = {
            model: {name: [round(second * 1e3, 3) for second in seconds] for name, seconds in rows.items()}
            for model, rows in results.items()
        }
        write_json(options.json, step_timing.machine_info() | {"versions": versions, "milliseconds": milliseconds})
        print(f"saved in {options.json}")


def skipped(entry: Entry, reason: str) -> None:
    print(f"without {entry.name}: {reason}", flush=True)


def read_environments(words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The commands of the environments, by name.

    Raises:
        InputError: a word without ``=``, the same name twice, or none at all.
    """
    environments = {}
    for word in words:
        name, equals, command = word.partition("=")
        if not (name and equals and command) or name in environments:
            raise InputError(f"compare_environments: {word!r}: write NAME=COMMAND, and another name for each")
        environments[name] = tuple(shlex.split(command))
    if not environments:
        raise InputError("compare_environments: name at least one environment: NAME=COMMAND")
    return environments


def ask_versions(name: str, command: tuple[str, ...]) -> dict[str, str]:
    """The versions of Python, jax and jaxlib in an environment."""
    try:
        answer = subprocess.run([*command, "-c", VERSIONS], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise InputError(f"compare_environments: {name}: {shlex.join(command)} does not run: {said}") from None
    return json.loads(answer.stdout)


def installed(command: tuple[str, ...], package: str) -> bool:
    """Whether an environment has a package."""
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([*command, "-c", find], capture_output=True).returncode == 0


def start(entry: Entry, *, model: str, timeout: float) -> process.WorkerProcess:
    """The worker of an entry, in its environment."""
    contestant = entry.contestant
    worker = [process.WORKER, contestant.framework, model, str(batch_of(model))]
    return process.WorkerProcess([*entry.command, *worker, "--mode", contestant.mode], timeout=timeout)


def table(model: str, rows: dict[str, list[float]]) -> str:
    """The times of one model, and their ratios to those of the first environment, round by round."""
    headings = ("median ms", "min", "max", "ratio")
    made = new_table(f"{model}: a training step", "environment, library", numbers=headings)
    first = next(iter(rows.values()))
    for name, seconds in rows.items():
        numbers = (f"{1e3 * of(seconds):.2f}" for of in (statistics.median, min, max))
        ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds, first, strict=True))
        made.add_row(name, *numbers, f"{ratio:.3f}")
    return as_text(made)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except InputError as error:
        sys.exit(str(error))
