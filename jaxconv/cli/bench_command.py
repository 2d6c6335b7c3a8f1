"""``jaxconv bench``: training steps, single operations (``--ops``), or the table of conv on a CPU (``--autotune``)."""

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
    """Time a training step of jaxconv's networks (forward, backward, Adam); or single operations, with --ops.

    Two modes take turns: step, one call a step, and epoch, the compiled program of many steps that training runs. Times
    are medians over rounds; the first call, which compiles, is listed apart. benchmarks/compare_frameworks.py of the
    source compares with other frameworks.

    --ops times each different convolution of the networks, pass by pass, by lowering, and their max pools. --autotune
    measures the table by which conv chooses its lowerings on a CPU, and writes it into the package.
    """

    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Names of networks."""
    batch_size: int | None = None
    """Images a step; by default 256 for mnist_cnn, and 128 for the others."""
    rounds: int = 15
    """Number of interleaved rounds."""
    ops: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time single operations instead of training steps."""
    autotune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure how conv should choose on a CPU instead, and write the table."""
    no_cpu_tuning: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave allocator and threads of this process as they are."""
    json: Path | None = None
    """Also write the times to this file; with --autotune, write there alone."""


def run_bench(options: Bench) -> None:
    """Run the benchmark that the options select."""
    for model in options.models:
        models.get_model(model)
    if options.autotune:
        tune_rule(rounds=options.rounds, file=options.json)
    elif options.ops:
        time_ops(
            options.models,
            options.batch_size,
            rounds=options.rounds,
            faster=not options.no_cpu_tuning,
            file=options.json,
        )
    else:
        time_models(options)


def check_bench(options: Bench) -> None:
    """Refuse options that do not go together or cannot work."""
    for name in ("ops", "models", "batch_size", "no_cpu_tuning") if options.autotune else ():
        if getattr(options, name) != getattr(Bench, name):
            raise InputError(f"--{name.replace('_', '-')} means nothing to --autotune: leave it out")
    if not options.models:
        raise InputError("--models: name at least one")
    checks.at_least(1, rounds=options.rounds)
    if options.batch_size is not None:
        checks.at_least(1, batch_size=options.batch_size)
    check_writable("--json", options.json)


def time_models(options: Bench) -> None:
    """Time the training step of each model; print and save the times as soon as they are known."""
    runtime.configure(cpu_tuning=not options.no_cpu_tuning)
    if busy := step_timing.busy_warning():
        tell(busy)
    rows: list[step_timing.StepTimes] = []
    with console(stderr=True).status("the machine's ceiling") as status:
        ceiling = step_timing.sgemm_gflops()
        for model in dict.fromkeys(options.models):
            timed = step_timing.time_steps(
                model,
                options.batch_size or step_timing.batch_of(model),
                rounds=options.rounds,
                progress=lambda text, model=model: status.update(f"{model}: {text}"),  # type: ignore[misc]
            )
            tell(*step_timing.times_table(timed).split("\n"))
            rows += timed
            if options.json:
                table = {"sgemm_gflops": ceiling, "rows": [row._asdict() for row in rows]}
                write_json(options.json, step_timing.machine_info() | table)
    tell(step_timing.peak_line(ceiling))
    if options.json:
        tell(f"saved in {options.json}")


def time_ops(models: Sequence[str], batch: int | None, *, rounds: int, faster: bool, file: Path | None) -> None:
    """Time the ops of each model; print and save them as soon as they are known, then say where jaxconv is slower."""
    runtime.configure(cpu_tuning=faster)
    if busy := step_timing.busy_warning():
        tell(busy)
    known: dict[op_cases.Case, list[op_timing.Row]] = {}
    with console(stderr=True).status("the machine's ceiling") as status:
        ceiling = step_timing.sgemm_gflops()
        for model in dict.fromkeys(models):
            images = batch or step_timing.batch_of(model)
            cases = op_cases.cases(model, images)
            if not cases:
                tell(f"{model}: it has no convolution and no max pool")
            for number, case in enumerate(cases, start=1):
                if case not in known:  # by a model before this one
                    what = f"{model}: {number} of {len(cases)}, {case.op} {case.direction} {case.shape}"
                    known[case] = op_timing.measure(
                        case,
                        rounds=rounds,
                        progress=lambda doing, what=what: status.update(f"{what}: {doing}"),  # type: ignore[misc]
                    )
            for name in dict.fromkeys(case.op for case in cases):
                measured = [known[case] for case in cases if case.op == name]
                title = f"{model}, batch {images}: {name}, medians of {rounds} rounds (least–most)"
                tell(*op_timing.table(title, measured, ceiling if name == "conv" else None).split("\n"))
            if file and known:
                rows = [row.to_dict() for each in known.values() for row in each]
                write_json(file, step_timing.machine_info() | {"sgemm_gflops": ceiling, "rounds": rounds, "rows": rows})
    if not known:
        error = InputError(f"--ops: nothing to time in {', '.join(models)}: name a model with a convolution")
        raise error.from_source("bench")
    tell(*op_timing.summary_lines(list(known.values())), step_timing.peak_line(ceiling))
    if file:
        tell(f"saved in {file}")


def tune_rule(*, rounds: int, file: Path | None) -> None:
    """Measure the table of the CPU's rule; print it, what changed, and where it was saved."""
    target = file or autotune.file_of(runtime.instruction_set(), runtime.versions()["jaxlib"])
    # Written beside and renamed, so the folder is what has to allow it.
    if not os.access(target.parent, os.W_OK):
        error = InputError(f"--autotune: {target} cannot be written: name another file, --json FILE")
        raise error.from_source("bench")
    runtime.tune_cpu()
    if busy := step_timing.busy_warning():
        tell(busy)
    before = autotune.load_table()
    with console(stderr=True).status("the table of the rule") as status:
        after = autotuning.autotune(before, rounds=rounds, progress=status.update)
    tell(*autotuning.table_text(after).split("\n"))
    tell(*autotuning.changed_choices(before["rows"], after["rows"]))
    write_json(target, after)
    tell(f"saved in {target}")
