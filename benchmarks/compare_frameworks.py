"""Time a training step of the same networks in jaxconv and in other frameworks, in interleaved rounds.

python -m benchmarks.compare_frameworks --json bench.json
python -m benchmarks.compare_frameworks --models resnet32 --frameworks torch torch_channels_last nnx --batch-size 64
python -m benchmarks.compare_frameworks --models mnist_cnn --frameworks lax keras --rounds 30 --figure bench.png
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import interleave, process, results
from benchmarks import targets as who
from jaxconv import checks, models, plot, runtime
from jaxconv.bench import step_timing
from jaxconv.bench.step_timing import StepTimes, step_times
from jaxconv.errors import InputError, error_context
from jaxconv.utils import terminal
from jaxconv.utils.files import check_writable, write_json
from jaxconv.utils.terminal import console, tell


@dataclasses.dataclass(frozen=True)
class Options:
    """Time a training step (forward, backward, Adam) in jaxconv and in other frameworks.

    Each framework runs in a process of its own, and imports no other. The processes take turns; a turn is some steps.
    Times are medians over rounds; the first call, which compiles, is listed apart. jaxconv runs in two modes: step, one
    call a step, and epoch, the compiled program of many steps that training runs. A framework that is not installed is
    skipped with a message.
    """

    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Networks, by name. small_cnn and mlp exist in jaxconv alone."""
    frameworks: Annotated[tuple[str, ...], tyro.conf.arg(help=f"{', '.join(who.FRAMEWORKS)}, or all.")] = ("all",)
    batch_size: int | None = None
    """Images a step; by default 256 for mnist_cnn, and 128 for the others."""
    rounds: int = 15
    """Turns that each has with each network."""
    timeout: float = 300.0
    """Seconds to wait for a framework to be ready, or to end its turn, before it is given up."""
    no_cpu_tuning: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave allocator and threads of jaxconv's processes as they are."""
    json: Path | None = None
    """Also write the times to this file."""
    figure: Path | None = None
    """Draw it into this .png; by default beside the JSON."""


def main(options: Options) -> None:
    """Time the frameworks, model by model; print each table, and save what is known by then, as soon as it is."""
    _check(options)
    # The parent and its workers share the device: none may take all of a GPU's memory before it needs it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if busy := step_timing.busy_warning():
        tell(f"{busy}, torch's above all, whose threads wait for one another")
    left_out: dict[str, str] = {}
    measured: dict[str, list[StepTimes]] = {}

    def leave_out(name: str, why: str) -> None:
        left_out[name] = f"{left_out[name]}; {why}" if name in left_out else why
        tell(f"without {name}: {why}")

    able = []
    for contestant in who.select_targets(options.frameworks):
        if why := who.missing(contestant):
            leave_out(contestant.name, why)
        else:
            able.append(contestant)
    with console(stderr=True).status("the machine's ceiling") as status:
        ceiling = step_timing.sgemm_gflops()
        for model in dict.fromkeys(options.models):
            batch = options.batch_size or step_timing.batch_of(model)
            there = [contestant for contestant in able if who.has_net(contestant, model)]
            if len(there) < len(able):
                tell(f"{model}: the other frameworks have no such network; jaxconv runs alone")
            found = interleave.run_interleaved(
                there,
                partial(
                    process.start, model=model, batch=batch, timeout=options.timeout, tune=not options.no_cpu_tuning
                ),
                rounds=options.rounds,
                on_failure=lambda contestant, why, model=model: leave_out(contestant.name, f"{model}: {why}"),  # type: ignore[misc]
                progress=lambda what, model=model: status.update(f"{model}: {what}"),  # type: ignore[misc]
            )
            if found:
                flops = step_timing.flops_of_step(model, batch)
                measured[model] = [
                    step_times(each.framework, each.mode, model, batch, *found[each.name], flops)
                    for each in there
                    if each.name in found
                ]
                tell(*results.table(measured[model]).split("\n"))
            if measured:
                saved = _save(options, measured, ceiling, left_out)
    if not measured:
        raise InputError("compare_frameworks: none of them could be timed; the lines above say why")
    for each in measured.values():
        tell(*results.summary_lines(each))
    tell(step_timing.peak_line(ceiling))
    if saved:
        tell(f"saved in {' and '.join(map(str, saved))}")


def _check(options: Options) -> None:
    for model in options.models:
        models.get_model(model)
    who.select_targets(options.frameworks)
    if not options.models:
        raise InputError("compare_frameworks: --models: name at least one")
    figure = _figure(options)
    with error_context("compare_frameworks"):
        checks.at_least(1, rounds=options.rounds)
        if options.batch_size is not None:
            checks.at_least(1, batch_size=options.batch_size)
        checks.real("timeout", options.timeout, above=0)
        check_writable("--json", options.json)
        check_writable("--figure", figure)
    if figure and figure.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"compare_frameworks: --figure {figure}: name a .png, .pdf or .svg")
    if figure and figure == options.json:
        raise InputError(f"compare_frameworks: --json {options.json} is where the figure goes: name a .json")


def _figure(options: Options) -> Path | None:
    return options.figure or (options.json.with_suffix(".png") if options.json else None)


def _save(
    options: Options, measured: dict[str, list[StepTimes]], ceiling: float, left_out: dict[str, str]
) -> list[Path]:
    """Write what is asked for: the files that there are now."""
    every = [row for each in measured.values() for row in each]
    device = runtime.device_name()
    if options.json:
        report = step_timing.machine_info()
        report["versions"] |= _versions([each.package for each in who.TARGETS])
        rest = {"sgemm_gflops": ceiling, "rows": [row._asdict() for row in every], "left_out": left_out}
        write_json(options.json, report | rest)
    if figure := _figure(options):
        cases = {f"{model}, batch {each[0].batch}": each for model, each in measured.items()}
        drawn = plot.step_times(
            {case: {row.name: row.median_ms for row in each} for case, each in cases.items()},
            {case: results.baseline(each).median_ms for case, each in cases.items()},
            title=f"a training step, {device}",
            against=_against(cases.values()),
        )
        plot.save_figure(drawn, figure)
    return [path for path in (options.json, figure) if path]


def _against(cases: Iterable[Sequence[StepTimes]]) -> str:
    """Whose the baselines are, in words."""
    by_torch = {results.baseline(each).framework in results.TORCH for each in cases}
    if by_torch == {True}:
        return "torch's, in its better layout"
    return "torch's or, without torch, the fastest's" if True in by_torch else "the fastest's"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in sorted(set(packages)) if importlib.util.find_spec(name)}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code is 0, 2 for bad input, 130 when interrupted."""
    try:
        main(tyro.cli(Options, args=arguments, prog="python -m benchmarks.compare_frameworks"))
        return 0
    except (InputError, OSError) as error:
        terminal.tell_error(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        terminal.tell_error("interrupted")
        return terminal.INTERRUPTED


if __name__ == "__main__":
    terminal.set_up()
    sys.exit(run())
