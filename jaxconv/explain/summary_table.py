"""A summary in writing: for a terminal, as plain text, as Markdown or as JSON."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jaxconv.compare.table import as_text
from jaxconv.errors import known
from jaxconv.explain.summary import Row, Summary

if TYPE_CHECKING:
    from rich.table import Table

FORMS = ("terminal", "text", "markdown", "json")
WIDE = 400  # more than any table takes


class Column(NamedTuple):
    """A heading, a cell for each row, and one for the total; what is not ``needed`` gives way to a narrow terminal."""

    heading: str
    cell: Callable[[Summary, Row], str]
    total: Callable[[Summary], str] = lambda summary: ""
    needed: bool = True


def _number(n: int) -> str:
    return f"{n:,}" if n else ""


def _format_size(sizes: tuple[int, ...] | None) -> str:
    return "×".join(map(str, sizes)) if sizes else ""


COLUMNS = (
    Column("layer", lambda s, row: row.name, lambda s: "total"),
    Column("output shape", lambda s, row: str(row.shape)),
    Column("parameters", lambda s, row: _number(row.params), lambda s: f"{s.params:,}"),
    Column("weights", lambda s, row: _number(row.weights), lambda s: f"{s.weights:,}", False),
    Column("biases", lambda s, row: _number(row.biases), lambda s: f"{s.biases:,}", False),
    Column("of all", lambda s, row: f"{s.share(row):.1%}" if row.params else "", lambda s: "", False),
    Column("multiply-adds", lambda s, row: _number(row.multiply_adds), lambda s: f"{s.multiply_adds:,}"),
    Column(
        "in training",
        lambda s, row: _number(row.training_multiply_adds),
        lambda s: f"{s.training_multiply_adds:,}",
        False,
    ),
    Column("activations", lambda s, row: f"{row.activation_bytes:,} B", lambda s: f"{s.activation_bytes:,} B", False),
    Column("sees", lambda s, row: _format_size(row.sees) or "all"),
    Column("jump", lambda s, row: _format_size(row.jump), needed=False),
    Column("if dense", lambda s, row: _number(row.dense_equivalent), needed=False),
)


def write_summary(summary: Summary, form: str = "text", *, title: str = "", width: int = WIDE) -> str:
    """A summary as a table, or as JSON.

    Args:
        summary: from :func:`jaxconv.explain.summarize`.
        form: ``"terminal"``, with lines around; ``"text"``, ``"markdown"`` or ``"json"``.
        title: above a table.
        width: in letters; in a terminal that is narrower than the table some columns are left out, and it says so.

    Below a table are the rows' notes, where there are any.

    Raises:
        InputError: an unknown form.

    >>> from jaxconv.explain import summarize
    >>> from jaxconv.models import mlp
    >>> print(write_summary(summarize(mlp(hidden=()), (2, 2, 1)), "markdown"))
    | layer    | output shape | parameters | weights | biases | of all | multiply-adds | in training | activations | sees | jump | if dense |
    |----------|--------------|------------|---------|--------|--------|---------------|-------------|-------------|------|------|----------|
    | flatten1 |         (4,) |            |         |        |        |               |             |        16 B |  all |      |          |
    | dense1   |        (10,) |         50 |      40 |     10 | 100.0% |            40 |          80 |        40 B |  all |      |       40 |
    | total    |              |         50 |      40 |     10 |        |            40 |          80 |        56 B |      |      |          |
    """  # noqa: E501
    known("form", form, FORMS, by="summary")
    if form == "json":
        return json.dumps(summary.as_json(), indent=2)
    from rich import box

    boxes = {"terminal": box.HEAVY_HEAD, "text": box.SIMPLE_HEAD, "markdown": box.MARKDOWN}
    notes = "".join(f"\n{row.note}" for row in summary.rows if row.note)
    notes = f"\n{notes}" if form == "markdown" and notes else notes  # a table ends with an empty line
    whole = _printed(_table(summary, COLUMNS, title, boxes[form]))
    if form != "terminal" or max(map(len, whole.splitlines())) <= width:
        return whole + notes
    left_out = ", ".join(column.heading for column in COLUMNS if not column.needed)
    narrow = _printed(_table(summary, [column for column in COLUMNS if column.needed], title, boxes[form]))
    return f"{narrow}\n(a wider terminal, or --form text, shows more: {left_out}){notes}"


def _table(summary: Summary, columns: "list[Column] | tuple[Column, ...]", title: str, lines: object) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=lines)  # type: ignore[arg-type]
    for column in columns:
        table.add_column(column.heading, justify="left" if column.heading == "layer" else "right", no_wrap=True)
    for row in summary.rows:
        table.add_row(*(column.cell(summary, row) for column in columns))
    if lines is not box.MARKDOWN:
        table.add_section()
    table.add_row(*(column.total(summary) for column in columns))
    return table


def _printed(table: "Table") -> str:
    return "\n".join(filter(None, as_text(table, width=WIDE).splitlines()))
