"""The table by which conv chooses on a CPU (:mod:`jaxconv.ops.convolution.cpu.autotune`), measured anew.

Its rows say which shapes stand for which kind of convolution. Here each lowering that can do a row's pass is timed with
them, compiled alone, with the defaults of conv: stride 1, no padding.
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
from jaxconv.bench.op_timing import TURN
from jaxconv.errors import InputError
from jaxconv.ops.convolution import primitives
from jaxconv.ops.convolution.cpu import autotune as rule
from jaxconv.ops.convolution.cpu import dispatch
from jaxconv.shapes import Window, resolve_window
from jaxconv.utils.tables import as_text, new_table
from jaxconv.utils.timing import in_turns

Row = dict[str, Any]  # of the table, as in its file
# A choice stays unless another is faster by more. Alone a pass is not what it is in a network, where XLA fuses it with
# what comes before and after; so a choice that bench has shown to be good in whole steps falls only to a clear winner.
SWITCH_RATIO = 1.25
COMMAND = "jaxconv bench --autotune"
WAYS = {wanted: way for way, wanted in PASS_OUTPUT.items()}


def autotune(
    table: Mapping[str, Any], *, rounds: int, progress: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """The table with the times and choices of this machine.

    Args:
        table: as it is; ``rule.table()`` gives it.
        rounds: how many turns each lowering has.
        progress: told what is going on.

    Raises:
        InputError: jax runs on something else than a CPU.
    """
    if (backend := jax.default_backend()) != "cpu":
        raise InputError(f"bench: --autotune: jax runs on a {backend}, and the table is a CPU's: set JAX_PLATFORMS=cpu")
    rows = []
    for number, row in enumerate(table["rows"], start=1):
        what = f"{number} of {len(table['rows'])}, {row['case']}, {WAYS[row['pass']]}"
        measured = measure(row, rounds=rounds, progress=lambda doing, what=what: progress(f"{what}: {doing}"))  # type: ignore[misc]
        rows.append(row | {"milliseconds": measured, "choice": choose(measured, row["choice"])})
    measured_with = {
        "machine": runtime.device_name(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
        "versions": runtime.versions(),
        "command": COMMAND,
    }
    return {**table, **measured_with, "rows": rows}


def measure(row: Row, *, rounds: int, progress: Callable[[str], None] = lambda what: None) -> dict[str, float]:
    """The median milliseconds of a row's pass, by lowering; those that can do it take turns."""
    rng = np.random.default_rng(0)
    wanted, form, shapes = row["pass"], form_of(row), _shapes(row)
    given = [jnp.asarray(rng.normal(size=shapes[name]), jnp.float32) for name in primitives.other_operands(wanted)]
    options = runtime.compiler_options()

    def program(lowering: primitives.Lowering) -> Callable[[], jax.Array]:
        return partial(jax.jit(lambda first, second: lowering(first, second, form), compiler_options=options), *given)

    runs = {name: program(dispatch.LOWERINGS[name][wanted]) for name in rule.supported_lowerings(wanted, row["case"])}
    measured = in_turns(runs, repeats=rounds, least=TURN, progress=progress)
    return {name: round(statistics.median(seconds) * 1e3, 3) for name, seconds in measured.items()}


def form_of(row: Row) -> primitives.ConvSpec:
    """What the passes of a row's convolution have in common."""
    size, dtype = tuple(row["x"][1:-1]), jnp.dtype(jnp.float32)
    window = resolve_window(Window(tuple(row["kernel"][:-2]), padding="VALID"), size)
    return primitives.ConvSpec(window, size, row["groups"], (dtype, dtype, dtype), None)


def _shapes(row: Row) -> dict[str, tuple[int, ...]]:
    x, kernel = tuple(row["x"]), tuple(row["kernel"])
    return {"x": x, "kernel": kernel, "y": primitives.shape_of("y", x, kernel, form_of(row))}


def choose(milliseconds: Mapping[str, float], before: str) -> str:
    """The fastest lowering, unless the one before is not much slower (:data:`SWITCH_RATIO`).

    >>> choose({"library": 1.2, "taps": 1.0}, "library"), choose({"library": 1.3, "taps": 1.0}, "library")
    ('library', 'taps')
    """
    best = min(milliseconds, key=lambda name: milliseconds[name])
    near = before in milliseconds and milliseconds[before] <= SWITCH_RATIO * milliseconds[best]
    return before if near else best


def changed_choices(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """In sentences, which choices are others now, and which stay although another was a little faster."""
    said = []
    for old, new in zip(before, after, strict=True):
        times, choice = new["milliseconds"], new["choice"]
        best = min(times, key=lambda name: times[name])
        which = f"{new['case']}, {WAYS[new['pass']]}"
        if old["choice"] != choice:
            said.append(f"{which}: {choice} now, not {old['choice']}")
        elif best != choice:
            said.append(f"{which}: {choice} stays; {best} is only {times[choice] / times[best] - 1:.1%} faster")
    if all(old["choice"] == new["choice"] for old, new in zip(before, after, strict=True)):
        said.append("no choice changed")
    return said


def table_text(table: Mapping[str, Any]) -> str:
    """The table as a terminal shows it: milliseconds, and the choice."""
    title = f"milliseconds on {table['machine']}"
    made = new_table(title, "case", "pass", "x", "kernel", numbers=dispatch.LOWERINGS)
    made.add_column("choice")
    last = None
    for row in table["rows"]:
        if last not in (None, row["case"]):
            made.add_section()
        shapes = ["×".join(map(str, row[name])) for name in ("x", "kernel")]
        names = [row["case"], *shapes] if row["case"] != last else [""] * 3
        times = [
            f"{row['milliseconds'][name]:.3f}" if name in row["milliseconds"] else "" for name in dispatch.LOWERINGS
        ]
        made.add_row(names[0], WAYS[row["pass"]], *names[1:], *times, row["choice"])
        last = row["case"]
    return as_text(made)
