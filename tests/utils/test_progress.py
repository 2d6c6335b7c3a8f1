"""Progress bars: the columns that each shows, where, and that text of others is no markup in them."""

import pytest

from jaxconv.utils.progress import progress_bar
from jaxconv.utils.tables import as_text


def shown(*columns, **fields):
    """The line of a bar that is half done."""
    bar = progress_bar(*columns)
    bar.add_task("[/reading]", total=2000, completed=1000, **fields)
    return as_text(bar.get_renderable())


@pytest.mark.parametrize(
    ("column", "text"),
    [("percent", "50%"), ("elapsed", "0:00:00"), ("remaining", "-:--:--"), ("bytes", "1.0/2.0 kB"), ("speed", "?")],
)
def test_each_column_stands_after_the_bar(column, text):
    before, line, after = shown(column).partition("━" * 20)
    assert before.startswith("[/reading]") and line and after.endswith(text)


def test_columns_stand_in_their_order_and_a_field_is_no_markup():
    line = shown("loss", "percent", loss="[red]0.5")
    assert line.startswith("[/reading]") and line.endswith("[red]0.5  50%")
    assert shown().endswith("━")  # nothing but the description and the bar


@pytest.mark.parametrize(("options", "stream"), [({}, "out"), ({"stderr": True}, "err"), ({"disable": True}, None)])
def test_a_bar_is_drawn_where_it_is_told_to(monkeypatch, capsys, options, stream):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as at a terminal
    with progress_bar("elapsed", **options) as bar:
        bar.add_task("reading", total=1)
    written = capsys.readouterr()._asdict()
    assert {name for name, text in written.items() if "reading" in text} == ({stream} - {None})
