"""Time the same training steps in several Python environments: versions of jax, or sets of XLA flags.

Each environment is a name and the command that starts its Python, optionally with variables set by ``env``::

    python -m benchmarks.compare_environments old=/venvs/jax-0.10.2/bin/python new=/venvs/jax-0.12/bin/python
    python -m benchmarks.compare_environments new=venv/bin/python \\
        avx2="env XLA_FLAGS=--xla_cpu_max_isa=AVX2 venv/bin/python" --models mnist_cnn

jaxconv must be installed in all of them; a framework of ``--frameworks`` that an environment lacks is skipped there.
Times are of one training step (forward, backward, Adam), as medians over interleaved rounds, each environment in its
own process. Ratios to the first environment are medians of the ratios in the same round, so that fluctuations of the
machine cancel.
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
    """Time the same training steps in several Python environments."""

    environments: Annotated[tuple[str, ...], tyro.conf.Positional]
    """NAME=COMMAND, where the command starts a Python; the first environment is the baseline."""
    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Networks by name."""
    frameworks: tuple[str, ...] = ()
    """Other libraries to time in every environment that has them, or all."""
    mode: str = "epoch"
    """Mode of jaxconv: epoch, as in jaxconv.train.fit, or step, one step per call."""
    rounds: int = 9
    """Number of rounds."""
    timeout: float = 300.0
    """Maximum seconds for a reply of a worker."""
    json: Path | None = None
    """Also write the times to this file."""


class Entry(NamedTuple):
    """A target in one environment."""

    environment: str
    command: tuple[str, ...]
    target: Target

    @property
    def name(self) -> str:
        return f"{self.environment}, {self.target.name}"


def main(options: Options) -> None:
    environments = parse_environments(options.environments)
    versions = {name: query_versions(name, command) for name, command in environments.items()}
    for name, packages in versions.items():
        print(f"{name}: {', '.join(f'{package} {version}' for package, version in packages.items())}", flush=True)
    if load_warning := step_timing.busy_warning():
        print(load_warning, flush=True)
    entries = [
        Entry(name, command, target)
        for name, command in environments.items()
        for target in targets.select_targets(options.frameworks)
        if (target.framework != JAXCONV or target.mode == options.mode) and is_installed(command, target.package)
    ]
    results: dict[str, dict[str, list[float]]] = {}
    with Console(stderr=True).status("starting") as status:
        for model in options.models:
            timings = interleave.run_interleaved(
                entries,
                partial(start, model=model, timeout=options.timeout),
                rounds=options.rounds,
                on_failure=print_skipped,
                progress=lambda step, model=model: status.update(f"{model}: {step}"),  # type: ignore[misc]
            )
            results[model] = {name: times.seconds for name, times in timings.items()}
            if timings:
                print(table(model, results[model]), flush=True)
    if not any(results.values()):
        raise InputError("compare_environments: no environment could be timed: see the messages above")
    if options.json:
        milliseconds = {
            model: {name: [round(value * 1e3, 3) for value in seconds] for name, seconds in rows.items()}
            for model, rows in results.items()
        }
        write_json(options.json, step_timing.machine_info() | {"versions": versions, "milliseconds": milliseconds})
        print(f"saved in {options.json}")


def print_skipped(entry: Entry, reason: str) -> None:
    print(f"skipped {entry.name}: {reason}", flush=True)


def parse_environments(arguments: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parse NAME=COMMAND arguments into commands by name.

    Raises:
        InputError: if an argument has no ``=``, a name is repeated, or there are no arguments.
    """
    environments = {}
    for argument in arguments:
        name, separator, command = argument.partition("=")
        if not (name and separator and command) or name in environments:
            raise InputError(f"compare_environments: {argument!r} must be NAME=COMMAND, with a unique name")
        environments[name] = tuple(shlex.split(command))
    if not environments:
        raise InputError("compare_environments: give at least one environment, NAME=COMMAND")
    return environments


def query_versions(name: str, command: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python, jax and jaxlib in an environment."""
    try:
        completed = subprocess.run([*command, "-c", VERSIONS], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise InputError(f"compare_environments: {name}: {shlex.join(command)} does not run: {reason}") from None
    return json.loads(completed.stdout)


def is_installed(command: tuple[str, ...], package: str) -> bool:
    """Return True if an environment has a package."""
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([*command, "-c", find], capture_output=True).returncode == 0


def start(entry: Entry, *, model: str, timeout: float) -> process.WorkerProcess:
    """Start the worker of an entry in its environment."""
    target = entry.target
    worker = [process.WORKER, target.framework, model, str(batch_of(model))]
    return process.WorkerProcess([*entry.command, *worker, "--mode", target.mode], timeout=timeout)


def table(model: str, rows: dict[str, list[float]]) -> str:
    """Format the times of one model, and their ratios to the first environment, as a table."""
    headings = ("median ms", "min", "max", "ratio")
    output = new_table(f"{model}: a training step", "environment, library", numbers=headings)
    baseline = next(iter(rows.values()))
    for name, seconds in rows.items():
        cells = (f"{1e3 * reduce(seconds):.2f}" for reduce in (statistics.median, min, max))
        ratio = statistics.median(own / reference for own, reference in zip(seconds, baseline, strict=True))
        output.add_row(name, *cells, f"{ratio:.3f}")
    return as_text(output)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except InputError as error:
        sys.exit(str(error))
