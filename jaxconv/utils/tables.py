"""Create rich tables, and render them as text for a terminal, a file or a notebook."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jaxconv.utils.terminal import console, printable

if TYPE_CHECKING:
    from rich.table import Table


def new_table(title: str, *names: str, numbers: Iterable[str] = (), **options: Any) -> "Table":
    """Create a rich table without rows.

    Args:
        title: line above the table; none if empty.
        names: headings of the first columns, which are aligned left.
        numbers: headings of the following columns, which are aligned right.
        options: further options of ``rich.table.Table``.

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
    """Render a rich table as plain text."""
    # A fixed width, since a wrapped line is better than a truncated number. Without the two options rich would display
    # the table itself in a notebook, and add colors where FORCE_COLOR is set.
    buffer = console(file=io.StringIO(), width=width, force_jupyter=False, force_terminal=False)
    buffer.print(table)
    text = buffer.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(printable(line.rstrip()) for line in text.split("\n")).rstrip("\n")
