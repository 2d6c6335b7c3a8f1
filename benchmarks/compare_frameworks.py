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

from benchmarks import interleave, process, results, targets
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

    Each framework runs in its own process and imports no other. The processes are timed in interleaved rounds. Times
    are medians over rounds; the first call, which compiles, is reported separately. jaxconv runs in two
    modes: step, one step per call, and epoch, the compiled function of many steps that training uses. A framework that
    is not installed is skipped with a message.
    """

    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Networks by name. small_cnn and mlp exist only in jaxconv."""
    frameworks: Annotated[tuple[str, ...], tyro.conf.arg(help=f"{', '.join(targets.FRAMEWORKS)}, or all.")] = ("all",)
    batch_size: int | None = None
    """Images per step; by default 256 for mnist_cnn, and 128 for the others."""
    rounds: int = 15
    """Number of rounds for each network."""
    timeout: float = 300.0
    """Maximum seconds for the startup, or a round, of a framework, after which it is skipped."""
    no_cpu_tuning: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not tune allocator and threads of the jaxconv processes."""
    json: Path | None = None
    """Also write the times to this file."""
    figure: Path | None = None
    """Image file of the figure; by default beside the JSON."""


def main(options: Options) -> None:
    """Time the frameworks model by model; print each table, and save the results after each model."""
    _check(options)
    # Parent and workers share the device, so none may preallocate the memory of a GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if busy := step_timing.busy_warning():
        tell(f"{busy}, most for torch, whose threads wait for one another")
    skipped: dict[str, str] = {}
    rows_by_model: dict[str, list[StepTimes]] = {}

    def skip(name: str, reason: str) -> None:
        skipped[name] = f"{skipped[name]}; {reason}" if name in skipped else reason
        tell(f"skipped {name}: {reason}")

    available = []
    for target in targets.select_targets(options.frameworks):
        if reason := targets.missing_package(target):
            skip(target.name, reason)
        else:
            available.append(target)
    with console(stderr=True).status("measuring the peak GFLOP/s") as status:
        peak_gflops = step_timing.sgemm_gflops()
        for model in dict.fromkeys(options.models):
            batch = options.batch_size or step_timing.batch_of(model)
            model_targets = [target for target in available if targets.has_network(target, model)]
            if len(model_targets) < len(available):
                tell(f"{model}: only jaxconv is timed; the other frameworks do not implement this network")
            timings = interleave.run_interleaved(
                model_targets,
                partial(
                    process.start, model=model, batch=batch, timeout=options.timeout, tune=not options.no_cpu_tuning
                ),
                rounds=options.rounds,
                on_failure=lambda target, reason, model=model: skip(target.name, f"{model}: {reason}"),  # type: ignore[misc]
                progress=lambda stage, model=model: status.update(f"{model}: {stage}"),  # type: ignore[misc]
            )
            if timings:
                flops = step_timing.flops_of_step(model, batch)
                rows_by_model[model] = [
                    step_times(target.framework, target.mode, model, batch, *timings[target.name], flops)
                    for target in model_targets
                    if target.name in timings
                ]
                tell(*results.table(rows_by_model[model]).split("\n"))
            if rows_by_model:
                saved = _save(options, rows_by_model, peak_gflops, skipped)
    if not rows_by_model:
        raise InputError("compare_frameworks: no framework could be timed: see the messages above")
    for rows in rows_by_model.values():
        tell(*results.summary_lines(rows))
    tell(step_timing.peak_line(peak_gflops))
    if saved:
        tell(f"saved in {' and '.join(map(str, saved))}")


def _check(options: Options) -> None:
    for model in options.models:
        models.get_model(model)
    targets.select_targets(options.frameworks)
    if not options.models:
        raise InputError("compare_frameworks: --models: give at least one network")
    figure = _figure(options)
    with error_context("compare_frameworks"):
        checks.at_least(1, rounds=options.rounds)
        if options.batch_size is not None:
            checks.at_least(1, batch_size=options.batch_size)
        checks.real("timeout", options.timeout, above=0)
        check_writable("--json", options.json)
        check_writable("--figure", figure)
    if figure and figure.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"compare_frameworks: --figure {figure} must be a .png, .pdf or .svg")
    if figure and figure == options.json:
        raise InputError(f"compare_frameworks: --json {options.json} is also the file of the figure: use a .json")


def _figure(options: Options) -> Path | None:
    return options.figure or (options.json.with_suffix(".png") if options.json else None)


def _save(
    options: Options, rows_by_model: dict[str, list[StepTimes]], peak_gflops: float, skipped: dict[str, str]
) -> list[Path]:
    """Write the JSON and the figure, where requested, and return their paths."""
    all_rows = [row for rows in rows_by_model.values() for row in rows]
    device = runtime.device_name()
    if options.json:
        report = step_timing.machine_info()
        report["versions"] |= _versions([target.package for target in targets.TARGETS])
        write_json(
            options.json,
            report | {"sgemm_gflops": peak_gflops, "rows": [row._asdict() for row in all_rows], "left_out": skipped},
        )
    if figure := _figure(options):
        cases = {f"{model}, batch {rows[0].batch}": rows for model, rows in rows_by_model.items()}
        drawing = plot.step_times(
            {case: {row.name: row.median_ms for row in rows} for case, rows in cases.items()},
            {case: results.baseline(rows).median_ms for case, rows in cases.items()},
            title=f"a training step, {device}",
            against=_baseline_label(cases.values()),
        )
        plot.save_figure(drawing, figure)
    return [path for path in (options.json, figure) if path]


def _baseline_label(cases: Iterable[Sequence[StepTimes]]) -> str:
    """Describe the baselines for the axis label."""
    by_torch = {results.baseline(rows).framework in results.TORCH for rows in cases}
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
