"""Measure the table from which conv selects its lowering on a CPU (:mod:`jaxconv.ops.convolution.cpu.autotune`).

Each row of the table has shapes that represent one category of convolutions. Every lowering that supports the row's
pass is timed on these shapes, compiled alone, with stride 1 and no padding.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import runtime
from jaxconv.bench.op_cases import PASS_OUTPUT
from jaxconv.bench.op_timing import MIN_ROUND_SECONDS
from jaxconv.errors import InputError
from jaxconv.ops.convolution import primitives
from jaxconv.ops.convolution.cpu import autotune as rule
from jaxconv.ops.convolution.cpu import dispatch
from jaxconv.shapes import Window, resolve_window
from jaxconv.utils.tables import as_text, new_table
from jaxconv.utils.timing import in_turns

Row = dict[str, Any]  # row of the table, as in its JSON file
# The previous choice is kept unless another lowering is faster by more than this ratio. A pass alone differs from a
# pass in a network, where XLA fuses it with its neighbors; so small differences do not override a choice that is good
# in whole training steps.
SWITCH_RATIO = 1.25
COMMAND = "jaxconv bench --autotune"
DIRECTIONS = {output: direction for direction, output in PASS_OUTPUT.items()}


def autotune(
    table: Mapping[str, Any], *, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Return the table with times and choices of this machine.

    Args:
        table: previous table, as ``load_table()`` returns it.
        rounds: number of interleaved rounds.
        progress: called with a description of each step.

    Raises:
        InputError: if jax does not run on a CPU.
    """
    if (backend := jax.default_backend()) != "cpu":
        raise InputError(
            f"bench: --autotune: the table is for CPUs, but jax runs on a {backend}: set JAX_PLATFORMS=cpu"
        )
    rows = []
    for index, row in enumerate(table["rows"], start=1):
        label = f"{index} of {len(table['rows'])}, {row['case']}, {DIRECTIONS[row['pass']]}"
        timings = measure(row, rounds=rounds, progress=lambda stage, label=label: progress(f"{label}: {stage}"))  # type: ignore[misc]
        rows.append(row | {"milliseconds": timings, "choice": choose(timings, row["choice"])})
    machine = {
        "machine": runtime.device_name(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
        "versions": runtime.versions(),
        "command": COMMAND,
    }
    return {**table, **machine, "rows": rows}


def measure(row: Row, *, rounds: int, progress: Callable[[str], None] = lambda text: None) -> dict[str, float]:
    """Return the median milliseconds of a row's pass by lowering, timed in interleaved rounds."""
    rng = np.random.default_rng(0)
    output, form, shapes = row["pass"], form_of(row), _array_shapes(row)
    operands = [jnp.asarray(rng.normal(size=shapes[name]), jnp.float32) for name in primitives.other_operands(output)]
    options = runtime.compiler_options()

    def compiled(lowering: primitives.Lowering) -> Callable[[], jax.Array]:
        return partial(jax.jit(lambda lhs, rhs: lowering(lhs, rhs, form), compiler_options=options), *operands)

    calls = {name: compiled(dispatch.LOWERINGS[name][output]) for name in rule.supported_lowerings(output, row["case"])}
    timings = in_turns(calls, repeats=rounds, least=MIN_ROUND_SECONDS, progress=progress)
    return {name: round(statistics.median(seconds) * 1e3, 3) for name, seconds in timings.items()}


def form_of(row: Row) -> primitives.ConvSpec:
    """Return the spec of a row's convolution, which its three passes share."""
    size, dtype = tuple(row["x"][1:-1]), jnp.dtype(jnp.float32)
    window = resolve_window(Window(tuple(row["kernel"][:-2]), padding="VALID"), size)
    return primitives.ConvSpec(window, size, row["groups"], (dtype, dtype, dtype), None)


def _array_shapes(row: Row) -> dict[str, tuple[int, ...]]:
    """Return the shapes of x, kernel and y."""
    x, kernel = tuple(row["x"]), tuple(row["kernel"])
    return {"x": x, "kernel": kernel, "y": primitives.shape_of("y", x, kernel, form_of(row))}


def choose(milliseconds: Mapping[str, float], previous: str) -> str:
    """Return the fastest lowering, or the previous one if it is within :data:`SWITCH_RATIO` of the fastest.

    >>> choose({"library": 1.2, "taps": 1.0}, "library"), choose({"library": 1.3, "taps": 1.0}, "library")
    ('library', 'taps')
    """
    best = min(milliseconds, key=lambda name: milliseconds[name])
    keep = previous in milliseconds and milliseconds[previous] <= SWITCH_RATIO * milliseconds[best]
    return previous if keep else best


def changed_choices(previous: Sequence[Row], updated: Sequence[Row]) -> list[str]:
    """Return lines about choices that changed, and choices kept although another lowering is faster."""
    lines = []
    for old, new in zip(previous, updated, strict=True):
        times, choice = new["milliseconds"], new["choice"]
        best = min(times, key=lambda name: times[name])
        label = f"{new['case']}, {DIRECTIONS[new['pass']]}"
        if old["choice"] != choice:
            lines.append(f"{label}: changed from {old['choice']} to {choice}")
        elif best != choice:
            lines.append(f"{label}: kept {choice}; {best} is only {times[choice] / times[best] - 1:.1%} faster")
    if all(old["choice"] == new["choice"] for old, new in zip(previous, updated, strict=True)):
        lines.append("no choice changed")
    return lines


def table_text(table: Mapping[str, Any]) -> str:
    """Format the table for a terminal: milliseconds and the choice."""
    title = f"milliseconds on {table['machine']}"
    output = new_table(title, "case", "pass", "x", "kernel", numbers=dispatch.LOWERINGS)
    output.add_column("choice")
    previous = None
    for row in table["rows"]:
        if previous not in (None, row["case"]):
            output.add_section()
        shapes = ["×".join(map(str, row[name])) for name in ("x", "kernel")]
        names = [row["case"], *shapes] if row["case"] != previous else [""] * 3
        times = [
            f"{row['milliseconds'][name]:.3f}" if name in row["milliseconds"] else "" for name in dispatch.LOWERINGS
        ]
        output.add_row(names[0], DIRECTIONS[row["pass"]], *names[1:], *times, row["choice"])
        previous = row["case"]
    return as_text(output)
