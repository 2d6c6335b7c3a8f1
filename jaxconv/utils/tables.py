"""Tables of rich: created in one way, and as text for a terminal, a file or a notebook."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jaxconv.utils.terminal import console, printable

if TYPE_CHECKING:
    from rich.table import Table


def new_table(title: str, *names: str, numbers: Iterable[str] = (), **options: Any) -> "Table":
    """Create a table of rich's without rows.

    Args:
        title: the line above it, if it is not empty.
        names: headings of the first columns, aligned left.
        numbers: headings of the columns after them, aligned right.
        options: of ``rich.table.Table``.

    >>> table = new_table("models", "name", numbers=["parameters"])
    >>> table.add_row("lenet5", "61,706")
    >>> table.add_row("mlp", "118,282")
    >>> print(as_text(table))
    models
    ┏━━━━━━━━┳━━━━━━━━━━━━┓
    ┃ name   ┃ parameters ┃
    ┡━━━━━━━━╇━━━━━━━━━━━━┩
    │ lenet5 │     61,706 │
    │ mlp    │    118,282 │
    └────────┴────────────┘
    """
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", **options)
    for name in names:
        table.add_column(name)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def as_text(table: "Table", *, width: int = 160) -> str:
    """A table of rich's, for a terminal or a file."""
    # As wide as it needs: a number that is cut is worse than a line that wraps. Left alone, rich would show the table
    # by itself in a notebook, and in colour wherever someone forces that.
    paper = console(file=io.StringIO(), width=width, force_jupyter=False, force_terminal=False)
    paper.print(table)
    written = paper.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(printable(line.rstrip()) for line in written.split("\n")).rstrip("\n")
