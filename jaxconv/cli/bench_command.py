"""``jaxconv bench``: time training steps, single ops (``--ops``) or the lowerings of conv on a CPU (``--autotune``)."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxconv import checks, models, runtime
from jaxconv.bench import autotuning, op_cases, op_timing, step_timing
from jaxconv.errors import InputError
from jaxconv.ops.convolution.cpu import autotune
from jaxconv.utils.files import check_writable, write_json
from jaxconv.utils.terminal import console, tell


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time training steps, or single ops with --ops.

    A training step is forward pass, backward pass and Adam update. Two modes are timed in interleaved rounds: step is
    one call per step, epoch is the compiled loop of many steps that training uses. Times are medians over rounds; the
    first call, which compiles, has its own column. To compare with other frameworks, run
    benchmarks/compare_frameworks.py of the source tree.

    --ops times each distinct convolution of the models, per pass and lowering, and each max pool. --autotune times the
    lowerings of conv on this CPU and writes the table from which conv selects one into the package.
    """

    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Names of models."""
    batch_size: int | None = None
    """Images per step; by default 256 for mnist_cnn, 128 otherwise."""
    rounds: int = 15
    """Number of interleaved rounds."""
    ops: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time single ops instead of training steps."""
    autotune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time the lowerings of conv and write the selection table."""
    no_cpu_tuning: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep the default allocator, threads and XLA settings."""
    json: Path | None = None
    """File for the times; with --autotune, written instead of the package's table."""


def run_bench(options: Bench) -> None:
    """Run the selected benchmark."""
    for model in options.models:
        models.get_model(model)
    if options.autotune:
        autotune_conv(rounds=options.rounds, file=options.json)
    elif options.ops:
        time_ops(
            options.models,
            options.batch_size,
            rounds=options.rounds,
            cpu_tuning=not options.no_cpu_tuning,
            file=options.json,
        )
    else:
        time_models(options)


def check_bench(options: Bench) -> None:
    """Raise InputError for options that cannot be combined or are out of range."""
    for name in ("ops", "models", "batch_size", "no_cpu_tuning") if options.autotune else ():
        if getattr(options, name) != getattr(Bench, name):
            raise InputError(f"--{name.replace('_', '-')} cannot be combined with --autotune")
    if not options.models:
        raise InputError("--models is empty: name at least one model")
    checks.at_least(1, rounds=options.rounds)
    if options.batch_size is not None:
        checks.at_least(1, batch_size=options.batch_size)
    check_writable("--json", options.json)


def time_models(options: Bench) -> None:
    """Time the training step of each model; print and save the times after each one."""
    runtime.configure(cpu_tuning=not options.no_cpu_tuning)
    if load_warning := step_timing.busy_warning():
        tell(load_warning)
    rows: list[step_timing.StepTimes] = []
    with console(stderr=True).status("peak GFLOP/s") as status:
        peak_gflops = step_timing.sgemm_gflops()
        for model in dict.fromkeys(options.models):
            timings = step_timing.time_steps(
                model,
                options.batch_size or step_timing.batch_of(model),
                rounds=options.rounds,
                progress=lambda text, model=model: status.update(f"{model}: {text}"),  # type: ignore[misc]
            )
            tell(*step_timing.times_table(timings).split("\n"))
            rows += timings
            if options.json:
                table = {"sgemm_gflops": peak_gflops, "rows": [row._asdict() for row in rows]}
                write_json(options.json, step_timing.machine_info() | table)
    tell(step_timing.peak_line(peak_gflops))
    if options.json:
        tell(f"saved in {options.json}")


def time_ops(models: Sequence[str], batch: int | None, *, rounds: int, cpu_tuning: bool, file: Path | None) -> None:
    """Time the ops of each model; print and save the times after each one, then list where jaxconv is slower."""
    runtime.configure(cpu_tuning=cpu_tuning)
    if load_warning := step_timing.busy_warning():
        tell(load_warning)
    timings: dict[op_cases.Case, list[op_timing.Row]] = {}
    with console(stderr=True).status("peak GFLOP/s") as status:
        peak_gflops = step_timing.sgemm_gflops()
        for model in dict.fromkeys(models):
            batch_size = batch or step_timing.batch_of(model)
            cases = op_cases.cases(model, batch_size)
            if not cases:
                tell(f"{model}: no convolution and no max pool")
            for index, case in enumerate(cases, start=1):
                if case not in timings:  # models may share a case
                    label = f"{model}: {index} of {len(cases)}, {case.op} {case.direction} {case.shape}"
                    timings[case] = op_timing.measure(
                        case,
                        rounds=rounds,
                        progress=lambda stage, label=label: status.update(f"{label}: {stage}"),  # type: ignore[misc]
                    )
            for op in dict.fromkeys(case.op for case in cases):
                rows_by_pass = [timings[case] for case in cases if case.op == op]
                title = f"{model}, batch {batch_size}: {op}, medians of {rounds} rounds (min–max)"
                tell(*op_timing.table(title, rows_by_pass, peak_gflops if op == "conv" else None).split("\n"))
            if file and timings:
                rows = [row.to_dict() for case_rows in timings.values() for row in case_rows]
                machine = step_timing.machine_info()
                write_json(file, machine | {"sgemm_gflops": peak_gflops, "rounds": rounds, "rows": rows})
    if not timings:
        error = InputError(f"--ops: nothing to time in {', '.join(models)}: name a model with a convolution")
        raise error.from_source("bench")
    tell(*op_timing.summary_lines(list(timings.values())), step_timing.peak_line(peak_gflops))
    if file:
        tell(f"saved in {file}")


def autotune_conv(*, rounds: int, file: Path | None) -> None:
    """Time the lowerings of conv on this CPU; print the table and its changes, and save it."""
    target = file or autotune.file_of(runtime.instruction_set(), runtime.versions()["jaxlib"])
    # The folder must be writable: a temporary file in it is renamed to the target.
    if not os.access(target.parent, os.W_OK):
        error = InputError(f"--autotune: {target} cannot be written: name another file with --json FILE")
        raise error.from_source("bench")
    runtime.tune_cpu()
    if load_warning := step_timing.busy_warning():
        tell(load_warning)
    previous = autotune.load_table()
    with console(stderr=True).status("timing the lowerings of conv") as status:
        updated = autotuning.autotune(previous, rounds=rounds, progress=status.update)
    tell(*autotuning.table_text(updated).split("\n"))
    tell(*autotuning.changed_choices(previous["rows"], updated["rows"]))
    write_json(target, updated)
    tell(f"saved in {target}")
