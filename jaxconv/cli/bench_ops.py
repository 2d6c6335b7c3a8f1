"""``jaxconv bench --ops`` and ``--tune``: single ops, and the table by which conv chooses on a CPU."""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxconv import runtime
from jaxconv.bench import autotuning, op_cases, op_timing, step_timing
from jaxconv.bench import contestants as who
from jaxconv.errors import InputError
from jaxconv.ops.convolution.cpu import autotune
from jaxconv.utils.files import write_json
from jaxconv.utils.terminal import console, tell


def time_ops(models: Sequence[str], batch: int | None, *, rounds: int, faster: bool, file: Path | None) -> None:
    """Time the ops of each model; print and save them as soon as they are known, then say where jaxconv is slower."""
    runtime.set_up(tuned=faster)
    if busy := step_timing.load():
        tell(busy)
    known: dict[op_cases.Case, list[op_timing.Row]] = {}
    with console(stderr=True).status("the machine's ceiling") as status:
        ceiling = step_timing.sgemm_gflops()
        for model in dict.fromkeys(models):
            images = batch or who.batch_of(model)
            asked = op_cases.cases(model, images)
            if not asked:
                tell(f"{model}: it has no convolution and no max pool")
            for number, case in enumerate(asked, start=1):
                if case not in known:  # by a model before this one
                    what = f"{model}: {number} of {len(asked)}, {case.op} {case.way} {case.shape}"
                    known[case] = op_timing.measure(
                        case,
                        rounds=rounds,
                        progress=lambda doing, what=what: status.update(f"{what}: {doing}"),  # type: ignore[misc]
                    )
            for name in dict.fromkeys(case.op for case in asked):
                measured = [known[case] for case in asked if case.op == name]
                title = f"{model}, batch {images}: {name}, medians of {rounds} rounds (least–most)"
                tell(*op_timing.table(title, measured, ceiling if name == "conv" else None).split("\n"))
            if file and known:
                rows = [row.as_json() for each in known.values() for row in each]
                write_json(file, step_timing.machine() | {"sgemm_gflops": ceiling, "rounds": rounds, "rows": rows})
    if not known:
        raise InputError(f"bench: --ops: nothing to time in {', '.join(models)}: name a model with a convolution")
    tell(*op_timing.verdict(list(known.values())), step_timing.ceiling_line(ceiling))
    if file:
        tell(f"saved in {file}")


def tune_rule(*, rounds: int, file: Path | None) -> None:
    """Measure the table of the CPU's rule; print it, what changed, and where it was saved."""
    target = file or autotune.file_of(runtime.instruction_set(), runtime.versions()["jaxlib"])
    # Written beside and renamed, so the folder is what has to allow it.
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"bench: --tune: {target} cannot be written: name another file, --json FILE")
    runtime.tune()
    if busy := step_timing.load():
        tell(busy)
    before = autotune.table()
    with console(stderr=True).status("the table of the rule") as status:
        after = autotuning.retune(before, rounds=rounds, progress=status.update)
    tell(*autotuning.table_text(after).split("\n"))
    tell(*autotuning.changes(before["rows"], after["rows"]))
    write_json(target, after)
    tell(f"saved in {target}")
