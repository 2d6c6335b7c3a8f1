"""Tables of rich: made alike, and as text for a terminal, a file or a notebook."""

import io
from typing import TYPE_CHECKING

from jaxconv.utils.terminal import console, printable

if TYPE_CHECKING:
    from rich.table import Table


def new_table(title: str, *names: str) -> "Table":
    """Table of rich with a title and its first columns."""
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
