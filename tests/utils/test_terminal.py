"""Untrusted names in the terminal, in figures and on the page; encodings, closed streams and Ctrl-C."""

import ast
import contextlib
import gc
import io
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import jaxconv
from common import plots
from jaxconv import InputError, plot
from jaxconv.plot.figures import literal
from jaxconv.report import figures
from jaxconv.train.loggers import Progress
from jaxconv.utils import terminal
from jaxconv.utils.files import read_json, write_json
from jaxconv.utils.terminal import printable

# ANSI, rich's markup and emoji, matplotlib's mathtext, bytes that are not UTF-8, right-to-left text, line breaks, HTML.
HOSTILE_NAMES = [
    "a\x1b[31m",
    "[/red]",
    "[bold]x",
    ":smile:",
    "$x",
    "$x$",
    r"\$",
    "$\\frac{",
    "caf\udce9",
    "\u202egnp",
    "a\nb",
]
HOSTILE_NAMES += ["=1+1", "<b>x"]


def test_tell_and_tell_error_escape_names(capsys):
    terminal.tell(*HOSTILE_NAMES)
    out = capsys.readouterr().out
    assert out.splitlines() == [printable(name) for name in HOSTILE_NAMES]
    assert all(character.isprintable() or character == "\n" for character in out)
    terminal.tell_error(f"no {'x' * 9999} {''.join(HOSTILE_NAMES)}")
    err = capsys.readouterr().err
    assert err.startswith("jaxconv: no xxx") and err.count("\n") == 1 and len(err) < 2100 and err[:-1].isprintable()


def test_only_terminal_and_progress_print():
    """``print`` does not escape names, and rich's consoles and bars parse them as markup."""
    root = Path(jaxconv.__file__).parent
    printing_modules = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            imported = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            if called in ("print", "Console") or re.search(r"rich\.progress|rich import.* progress", imported):
                printing_modules.add(path.relative_to(root).as_posix())
    assert printing_modules == {"utils/terminal.py", "utils/progress.py"}


def test_tables_and_bars_show_names_as_text(capsys):
    from rich.table import Table

    from jaxconv.utils.progress import progress_bar
    from jaxconv.utils.tables import as_text

    table = Table(title="[/title]")
    table.add_column("[/column]")
    for name in HOSTILE_NAMES:
        table.add_row(name)
    text = as_text(table)
    assert "\x1b" not in text and "\u202e" not in text and "\udce9" not in text
    assert all(name in text for name in ["[/title]", "[/column]", "[/red]", "[bold]x", ":smile:"])
    with progress_bar() as bar:
        bar.add_task("[/red]")
    from jaxconv.train.loaders import EpochPlan
    from jaxconv.train.snapshots import TrainProgress

    record = {"epoch": 1, "loss": 1.0, "accuracy": 0.1, "val_loss": 1.0, "val_accuracy": 0.1, "images_per_second": 9.0}
    plan = EpochPlan(num_examples=22, batch_size=4, steps_per_epoch=6, steps_per_execution=2, executions=3)
    with Progress(3, plan, TrainProgress(), show=True) as bar:
        bar.epoch(record | {"dead_layers": ["[/red]", "a\x1b[31m"]}, False)
    out = capsys.readouterr().out
    assert "[/red] is dead" in out and "a\\x1b[31m is dead" in out


def test_figures_draw_names_as_text(tmp_path):
    """matplotlib parses $x$ as a formula and raises for a surrogate; figures draw names as plain text."""
    count = len(HOSTILE_NAMES)
    images, labels = np.zeros((count, 4, 4, 1), np.uint8), np.arange(count)
    probabilities = np.eye(count)[(labels + 1) % count]
    figures = [
        plot.misclassified(images, labels, probabilities, HOSTILE_NAMES),
        plot.confusion_matrix(np.eye(count, dtype=int), HOSTILE_NAMES, title="$\\frac{ \udce9"),
        plot.image_grid([np.zeros((4, 4, 3), np.uint8)] * count, HOSTILE_NAMES, title="$$$"),
        plot.image_rows({name: np.zeros((1, 4, 4, 1)) for name in HOSTILE_NAMES}, HOSTILE_NAMES),
        plots.grouped_bars({name: {name: [0.5]} for name in HOSTILE_NAMES[:3]}, title="$\\frac{"),
        plots.accuracy_vs_num_samples({name: {1: [0.5]} for name in HOSTILE_NAMES}, measure="$\\frac{"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, figure in enumerate(figures):
            assert plot.save(tmp_path / f"{i}.png", figure)
    assert [literal(name) for name in ("$x$", r"\$", "a\nb")] == [r"\$x\$", r"\\$", "a\nb"]


def test_literal_draws_dollar_signs():
    from matplotlib.cbook import is_math_text
    from matplotlib.figure import Figure

    def render(text, **options):
        figure = Figure()
        figure.text(0.1, 0.5, text, **options)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="raw")
        return buffer.getvalue()

    for name in ("$x$", "$5 or $6", "a$"):
        assert not is_math_text(literal(name))
        assert render(literal(name)) == render(name, parse_math=False)
    assert render(literal("$x$")) != render("$x$")


def test_save_failed_figure_warns(tmp_path):
    def fail():
        raise RuntimeError("no\nmemory")

    with pytest.warns(UserWarning, match=r"the picture .*x\.png is left out: RuntimeError: no memory$"):
        assert not plot.save(tmp_path / "x.png", fail)
    with pytest.warns(UserWarning, match=r"the picture .*is left out: InputError: .*cannot be written"):
        assert not plot.save(tmp_path / "none" / "x.png", plot.annotated_arrays({"a": np.eye(2)}))
    assert not list(tmp_path.iterdir())


def test_charts_and_pages_escape_names(tmp_path):
    from jaxconv.report.page import Block, Section, Table, write_page

    chart = figures.confusion(np.eye(len(HOSTILE_NAMES)), HOSTILE_NAMES) + figures.lines({"<b>x": ([1], [2])}, "x", "y")
    assert "\\u003cb>" not in chart and "&lt;b&gt;x" in chart and "\\udce9" not in chart.replace("\\\\udce9", "")
    section = Section(
        "x",
        "[x]",
        HOSTILE_NAMES,
        [Block(charts=[("x", chart)], table=Table(HOSTILE_NAMES, [HOSTILE_NAMES]), pre="a\nb")],
    )
    write_page(tmp_path / "page.html", HOSTILE_NAMES[0], [], HOSTILE_NAMES, [section])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in page and "\u202e" not in page and "<b>x" not in page and "<pre>a\nb</pre>" in page


def test_json_round_trips_paths_that_are_not_utf8(tmp_path):
    write_json(tmp_path / "x.json", {"dataset": "folder:caf\udce9", "n": 1})
    assert read_json(tmp_path / "x.json", dict[str, str | int]) == {"dataset": "folder:caf\udce9", "n": 1}
    (tmp_path / "x.json").write_text('{"a": "\\udce9", "b": ')
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": "\\udce9"}')
    with pytest.raises(InputError, match=r"x\.json is"):
        read_json(tmp_path / "x.json", dict[str, int])


@contextlib.contextmanager
def set_up(encoding="utf-8"):
    """Run ``terminal.set_up`` in this process, yield the bytes written to stdout, and restore the streams and hooks."""
    output = io.BytesIO()
    original = sys.stdout, sys.stderr, sys.unraisablehook, warnings.showwarning
    sys.stdout, sys.stderr = (io.TextIOWrapper(file, encoding) for file in (output, io.BytesIO()))
    try:
        terminal.set_up()
        yield output
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr, sys.unraisablehook, warnings.showwarning = original


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_set_up_writes_in_every_encoding(encoding):
    with set_up(encoding) as output:
        print("28×28 → 0.9 ± 0.1 ━┏ ж \udce9", flush=True)
        text = output.getvalue().decode(encoding).rstrip()
    expected = {"ascii": "28x28 -> 0.9 +- 0.1 -+ \\u0436 \\udce9", "utf-8": "28×28 → 0.9 ± 0.1 ━┏ ж \\udce9"}
    assert text == expected.get(encoding, "28×28 -> 0.9 ± 0.1 -+ \\u0436 \\udce9")


def test_set_up_prints_warnings_on_one_line():
    with set_up():
        warnings.showwarning(UserWarning("two\nlines"), UserWarning, "x.py", 1)
        assert sys.stderr.buffer.getvalue() == b"jaxconv: warning: two\\nlines\n"


def test_stream_continues_after_broken_pipe():
    read_end, write_end = os.pipe()
    with io.TextIOWrapper(open(write_end, "wb"), encoding="utf-8") as stream:
        wrapped = terminal._Stream(stream, write_end)
        os.close(read_end)
        for _ in range(3):
            print("x" * 99_999, file=wrapped, flush=True)


def test_set_up_repeats_dropped_interrupts():
    """jax registers a garbage collector callback, in which Python drops exceptions."""
    armed = [True]

    def callback(phase, info):
        if armed and armed.pop():
            raise KeyboardInterrupt

    with set_up():
        try:
            with pytest.raises(KeyboardInterrupt):
                gc.callbacks.append(callback)
                gc.collect()
                time.sleep(5)
        finally:
            gc.callbacks.remove(callback)


BLOCKING_IMPORT = """
import sys, time

class Finder:
    def find_spec(self, name, *rest):
        if name == "tyro":
            print("loading", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Finder())
from jaxconv.cli import console
console()
"""


def test_ctrl_c_during_imports_prints_one_line():
    """During imports: a finder blocks the import of tyro."""
    command = [sys.executable, "-c", BLOCKING_IMPORT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert stderr == "jaxconv: interrupted\n" and process.returncode == 130


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-", "| true"])
def test_closed_streams_raise_no_error(tmp_path, closing):
    command = f"{sys.executable} -m jaxconv.cli --version {closing}; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == ""
