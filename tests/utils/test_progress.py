"""Progress bars: columns, streams, and text that is not parsed as markup."""

import pytest

from jaxconv.utils.progress import progress_bar
from jaxconv.utils.tables import as_text


def render(*columns, **fields):
    """Line of a bar at 50 %."""
    bar = progress_bar(*columns)
    bar.add_task("[/reading]", total=2000, completed=1000, **fields)
    return as_text(bar.get_renderable())


@pytest.mark.parametrize(
    ("column", "text"),
    [("percent", "50%"), ("elapsed", "0:00:00"), ("remaining", "-:--:--"), ("bytes", "1.0/2.0 kB"), ("speed", "?")],
)
def test_progress_bar_column_is_after_bar(column, text):
    before, bar, after = render(column).partition("━" * 20)
    assert before.startswith("[/reading]") and bar and after.endswith(text)


def test_progress_bar_columns_keep_order_and_text():
    line = render("loss", "percent", loss="[red]0.5")
    assert line.startswith("[/reading]") and line.endswith("[red]0.5  50%")
    assert render().endswith("━")  # only the description and the bar


@pytest.mark.parametrize(("options", "stream"), [({}, "out"), ({"stderr": True}, "err"), ({"disable": True}, None)])
def test_progress_bar_stream_options(monkeypatch, capsys, options, stream):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as at a terminal
    with progress_bar("elapsed", **options) as bar:
        bar.add_task("reading", total=1)
    output = capsys.readouterr()._asdict()
    assert {name for name, text in output.items() if "reading" in text} == ({stream} - {None})
