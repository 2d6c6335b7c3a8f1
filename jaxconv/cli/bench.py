"""``jaxconv bench``: how long a training step takes, beside other libraries."""

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from jaxconv import checks, models, plot, runtime
from jaxconv.bench import contestants as who
from jaxconv.bench import process, rounds, rows, step_timing
from jaxconv.cli.bench_ops import time_ops, tune_rule
from jaxconv.errors import InputError
from jaxconv.utils.files import check_writable, write_json
from jaxconv.utils.terminal import console, tell


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time a full training step (forward, backward, Adam), beside other libraries; or single ops, with --ops.

    Each runs in a process of its own; they take turns, and a turn is some steps. Times are medians over rounds; the
    first call, which compiles, is apart. jaxconv runs in two modes: step, one call a step, and epoch, the compiled
    chunk of many steps that training runs. A peer that is not installed is left out, with a line that says so.

    --ops times each different convolution of the networks, pass by pass, by lowering, and their max pools. --tune
    measures the table by which conv chooses its lowerings on a CPU, and writes it into the package.
    """

    models: tuple[str, ...] = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
    """Networks, by name. small_cnn and mlp have no counterpart in the peers, and run alone."""
    peers: Annotated[tuple[str, ...], tyro.conf.arg(help=f"{', '.join(who.PEERS)}, or all of them.")] = ("all",)
    batch: int | None = None
    """Images a step; by default 256 for mnist_cnn, and 128 for the others."""
    rounds: int = 15
    """Turns that each has with each network."""
    timeout: float = 300.0
    """Seconds to wait for a peer to be ready, or to end its turn, before it is given up."""
    ops: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time single ops instead of training steps."""
    tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure how conv should choose on a CPU instead, and write the table."""
    no_tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave allocator and threads of jaxconv's processes as they are."""
    json: Path | None = None
    """Also write what was measured to this file; with --tune, write there alone."""
    figure: Path | None = None
    """Draw it into this .png; by default beside the JSON."""


# What the other two kinds of benchmark have no use for.
UNUSED = {
    "ops": ("peers", "timeout", "figure"),
    "tune": ("ops", "models", "peers", "batch", "timeout", "no_tune", "figure"),
}


def run_bench(options: Bench) -> None:
    """The benchmark that is asked for."""
    _check(options)
    if options.tune:
        tune_rule(rounds=options.rounds, file=options.json)
    elif options.ops:
        time_ops(options.models, options.batch, rounds=options.rounds, faster=not options.no_tune, file=options.json)
    else:
        _race(options)


def _race(options: Bench) -> None:
    """Race, model by model; print each table, and save what is known by then, as soon as it is."""
    # The parent and its workers share the device: none may take all of a GPU's memory before it needs it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if busy := step_timing.load():
        tell(f"{busy}, torch's above all, whose threads wait for one another")
    left_out: dict[str, str] = {}
    measured: dict[str, list[rows.Row]] = {}

    def leave_out(name: str, why: str) -> None:
        left_out[name] = f"{left_out[name]}; {why}" if name in left_out else why
        tell(f"without {name}: {why}")

    able = []
    for contestant in who.chosen(options.peers):
        if why := who.missing(contestant):
            leave_out(contestant.name, why)
        else:
            able.append(contestant)
    with console(stderr=True).status("the machine's ceiling") as status:
        ceiling = step_timing.sgemm_gflops()
        for model in dict.fromkeys(options.models):
            batch = options.batch or who.batch_of(model)
            there = [contestant for contestant in able if who.has_net(contestant, model)]
            if len(there) < len(able):
                tell(f"{model}: the peers have no such network; jaxconv runs alone")
            found = rounds.race(
                there,
                partial(process.start, model=model, batch=batch, timeout=options.timeout, tune=not options.no_tune),
                rounds=options.rounds,
                lost=lambda contestant, why, model=model: leave_out(contestant.name, f"{model}: {why}"),  # type: ignore[misc]
                progress=lambda what, model=model: status.update(f"{model}: {what}"),  # type: ignore[misc]
            )
            if found:
                flops = step_timing.flops_of_step(model, batch)
                measured[model] = [
                    rows.make_row(each, model, batch, found[each.name], flops) for each in there if each.name in found
                ]
                tell(*rows.table(measured[model]).split("\n"))
            if measured:
                saved = _save(options, measured, ceiling, left_out)
    if not measured:
        raise InputError("bench: none of them could be timed; the lines above say why")
    for each in measured.values():
        tell(*rows.sentences(each))
    tell(step_timing.ceiling_line(ceiling))
    if saved:
        tell(f"saved in {' and '.join(map(str, saved))}")


def _check(options: Bench) -> None:
    for mode in ("tune", "ops"):
        for name in UNUSED[mode] if getattr(options, mode) else ():
            if getattr(options, name) != getattr(Bench, name):
                raise InputError(f"bench: --{name.replace('_', '-')} means nothing to --{mode}: leave it out")
    for model in options.models:
        models.find(model)
    who.chosen(options.peers)
    if not options.models:
        raise InputError("bench: --models: name at least one")
    checks.whole("bench", 1, rounds=options.rounds)
    if options.batch is not None:
        checks.whole("bench", 1, batch=options.batch)
    checks.number("bench", "timeout", options.timeout, above=0)
    check_writable("bench", "--json", options.json)
    if options.ops or options.tune:
        return
    figure = _figure(options)
    check_writable("bench", "--figure", figure)
    if figure and figure.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"bench: --figure {figure}: name a .png, .pdf or .svg")
    if figure and figure == options.json:
        raise InputError(f"bench: --json {options.json} is where the figure goes: name a .json")


def _figure(options: Bench) -> Path | None:
    return options.figure or (options.json.with_suffix(".png") if options.json else None)


def _save(options: Bench, measured: dict[str, list[rows.Row]], ceiling: float, left_out: dict[str, str]) -> list[Path]:
    """Write what is asked for: the files that there are now."""
    every = [row for each in measured.values() for row in each]
    device = runtime.device_name()
    if options.json:
        report = step_timing.machine()
        report["versions"] |= _versions([each.package for each in who.CONTESTANTS])
        rest = {"sgemm_gflops": ceiling, "rows": [row._asdict() for row in every], "left_out": left_out}
        write_json(options.json, report | rest)
    if figure := _figure(options):
        cases = {f"{model}, batch {each[0].batch}": each for model, each in measured.items()}
        drawn = plot.step_times(
            {case: {row.name: row.median_ms for row in each} for case, each in cases.items()},
            {case: rows.baseline(each).median_ms for case, each in cases.items()},
            title=f"a training step, {device}",
            against=_against(cases.values()),
        )
        plot.save_figure(drawn, figure)
    return [path for path in (options.json, figure) if path]


def _against(cases: Iterable[Sequence[rows.Row]]) -> str:
    """Whose the baselines are, in words."""
    by_torch = {rows.baseline(each).peer in rows.TORCH for each in cases}
    if by_torch == {True}:
        return "torch's, in its better layout"
    return "torch's or, without torch, the fastest's" if True in by_torch else "the fastest's"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in sorted(set(packages)) if importlib.util.find_spec(name)}
