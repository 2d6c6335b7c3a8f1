"""What was found, as text: tables that a terminal or a notebook shows."""

import io
from typing import TYPE_CHECKING

from jaxconv.utils.terminal import console
from jaxconv.utils.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from jaxconv.testing.comparison import Comparison
    from jaxconv.testing.gradient_check import GradientCheck


def comparison_table(found: "Comparison") -> str:
    """The differences, quantity by quantity, and the times where there are any."""
    truth = found.reference if found.dtype == "float64" else f"{found.reference} in float64"
    table = _table(f"{found.dtype} on {found.device}, against {truth}", "quantity", "implementation")
    for heading in ("largest error", "relative", "ulps", "rounding allows", "kinks", ""):
        table.add_column(heading, justify="right")
    last = None
    for row in found.rows:
        if last not in (None, row.quantity):
            table.add_section()
        numbers = (f"{row.absolute:.1e}", f"{row.relative:.1e}", f"{row.ulps:.1f}", f"{row.tolerance:.1e}")
        name = row.quantity if row.quantity != last else ""
        table.add_row(name, row.implementation, *numbers, str(row.kinks or ""), "ok" if row.ok else "DIFFERS")
        last = row.quantity
    if not found.seconds:
        return as_text(table)
    times = _table("medians of compiled calls", "implementation")
    for heading in ("forward", "forward and backward"):
        times.add_column(heading, justify="right")
    for name, timing in found.seconds.items():
        times.add_row(name, f"{timing.forward * 1e3:.3f} ms", f"{timing.both * 1e3:.3f} ms")
    return as_text(table) + "\n" + as_text(times)


def gradient_table(check: "GradientCheck") -> str:
    """For each argument its worst entry: what the gradient says, and what the differences say."""
    table = _table("gradients against finite differences, float64", "argument", "worst at")
    for heading in ("gradient", "differences", "apart", "allowed", "checked", "kinks", ""):
        table.add_column(heading, justify="right")
    for row in check.rows:
        numbers = (f"{row.gradient:.9g}", f"{row.slope:.9g}", f"{abs(row.gradient - row.slope):.1e}")
        verdict = f"{row.failed} WRONG" if row.failed else "ok"
        counts = (str(row.checked), str(row.kinks or ""), verdict)
        table.add_row(row.name, row.where, *numbers, f"{row.error:.1e}", *counts)
    return as_text(table)


def _table(title: str, *names: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name)
    return table


def as_text(table: "Table", *, width: int = 160) -> str:
    """A table of rich's, for a terminal or a file."""
    # As wide as it needs: a number that is cut is worse than a line that wraps. Left alone, rich would show the table
    # by itself in a notebook, and in colour wherever someone forces that.
    paper = console(file=io.StringIO(), width=width, force_jupyter=False, force_terminal=False)
    paper.print(table)
    written = paper.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(printable(line.rstrip()) for line in written.split("\n")).rstrip("\n")
