"""What others named, in the terminal, in figures and on the page; any encoding; streams that go away; Ctrl-C."""

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

# ANSI, rich's markup and emoji, matplotlib's mathtext, bytes that are no UTF-8, text from right to left, HTML.
NASTY = ["a\x1b[31m", "[/red]", "[bold]x", ":smile:", "$x", "$x$", r"\$", "$\\frac{", "caf\udce9", "\u202egnp", "a\nb"]
NASTY += ["=1+1", "<b>x"]


def test_lines_that_are_told_are_lines(capsys):
    terminal.tell(*NASTY)
    out = capsys.readouterr().out
    assert out.splitlines() == [printable(name) for name in NASTY]
    assert all(character.isprintable() or character == "\n" for character in out)
    terminal.tell_error(f"no {'x' * 9999} {''.join(NASTY)}")
    err = capsys.readouterr().err
    assert err.startswith("jaxconv: no xxx") and err.count("\n") == 1 and len(err) < 2100 and err[:-1].isprintable()


def test_everything_that_prints_does_so_through_one_place():
    """print, and rich's consoles and bars, would take names of others as what they look like."""
    root = Path(jaxconv.__file__).parent
    printing = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            imported = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            if called in ("print", "Console") or re.search(r"rich\.progress|rich import.* progress", imported):
                printing.add(path.relative_to(root).as_posix())
    assert printing == {"utils/terminal.py", "utils/progress.py"}


def test_rich_takes_names_as_text(capsys):
    from rich.table import Table

    from jaxconv.utils.progress import progress_bar
    from jaxconv.utils.tables import as_text

    table = Table(title="[/title]")
    table.add_column("[/column]")
    for name in NASTY:
        table.add_row(name)
    written = as_text(table)
    assert "\x1b" not in written and "\u202e" not in written and "\udce9" not in written
    assert all(name in written for name in ["[/title]", "[/column]", "[/red]", "[bold]x", ":smile:"])
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


def test_figures_take_names_as_text(tmp_path):
    """matplotlib would take $x$ for a formula, and ends on a surrogate; drawn, each name has the pixels of its text."""
    count = len(NASTY)
    images, labels = np.zeros((count, 4, 4, 1), np.uint8), np.arange(count)
    probabilities = np.eye(count)[(labels + 1) % count]
    figures = [
        plot.misclassified(images, labels, probabilities, NASTY),
        plot.confusion_matrix(np.eye(count, dtype=int), NASTY, title="$\\frac{ \udce9"),
        plot.image_grid([np.zeros((4, 4, 3), np.uint8)] * count, NASTY, title="$$$"),
        plot.image_rows({name: np.zeros((1, 4, 4, 1)) for name in NASTY}, NASTY),
        plots.grouped_bars({name: {name: [0.5]} for name in NASTY[:3]}, title="$\\frac{"),
        plots.accuracy_vs_num_samples({name: {1: [0.5]} for name in NASTY}, measure="$\\frac{"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, figure in enumerate(figures):
            assert plot.save(tmp_path / f"{i}.png", figure)
    assert [literal(name) for name in ("$x$", r"\$", "a\nb")] == [r"\$x\$", r"\\$", "a\nb"]


def test_a_dollar_is_drawn_as_a_dollar():
    from matplotlib.cbook import is_math_text
    from matplotlib.figure import Figure

    def drawn(text, **options):
        figure = Figure()
        figure.text(0.1, 0.5, text, **options)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="raw")
        return buffer.getvalue()

    for name in ("$x$", "$5 or $6", "a$"):
        assert not is_math_text(literal(name))
        assert drawn(literal(name)) == drawn(name, parse_math=False)
    assert drawn(literal("$x$")) != drawn("$x$")


def test_a_picture_never_costs_a_result(tmp_path):
    def fail():
        raise RuntimeError("no\nmemory")

    with pytest.warns(UserWarning, match=r"the picture .*x\.png is left out: RuntimeError: no memory$"):
        assert not plot.save(tmp_path / "x.png", fail)
    with pytest.warns(UserWarning, match=r"the picture .*is left out: InputError: .*cannot be written"):
        assert not plot.save(tmp_path / "none" / "x.png", plot.annotated_arrays({"a": np.eye(2)}))
    assert not list(tmp_path.iterdir())


def test_charts_and_pages_take_names_as_text(tmp_path):
    from jaxconv.report.page import Block, Section, Table, write_page

    chart = figures.confusion(np.eye(len(NASTY)), NASTY) + figures.lines({"<b>x": ([1], [2])}, "x", "y")
    assert "\\u003cb>" not in chart and "&lt;b&gt;x" in chart and "\\udce9" not in chart.replace("\\\\udce9", "")
    section = Section("x", "[x]", NASTY, [Block(charts=[("x", chart)], table=Table(NASTY, [NASTY]), pre="a\nb")])
    write_page(tmp_path / "page.html", NASTY[0], [], NASTY, [section])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in page and "\u202e" not in page and "<b>x" not in page and "<pre>a\nb</pre>" in page


def test_a_path_that_is_no_utf8_goes_into_json_and_back(tmp_path):
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
    """This process set up as the program sets itself up, and undone; what is written to stdout."""
    written = io.BytesIO()
    before = sys.stdout, sys.stderr, sys.unraisablehook, warnings.showwarning
    sys.stdout, sys.stderr = (io.TextIOWrapper(file, encoding) for file in (written, io.BytesIO()))
    try:
        terminal.set_up()
        yield written
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr, sys.unraisablehook, warnings.showwarning = before


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_encoding_can_be_written(encoding):
    with set_up(encoding) as written:
        print("28×28 → 0.9 ± 0.1 ━┏ ж \udce9", flush=True)
        told = written.getvalue().decode(encoding).rstrip()
    want = {"ascii": "28x28 -> 0.9 +- 0.1 -+ \\u0436 \\udce9", "utf-8": "28×28 → 0.9 ± 0.1 ━┏ ж \\udce9"}
    assert told == want.get(encoding, "28×28 -> 0.9 ± 0.1 -+ \\u0436 \\udce9")


def test_a_warning_is_one_line():
    with set_up():
        warnings.showwarning(UserWarning("two\nlines"), UserWarning, "x.py", 1)
        assert sys.stderr.buffer.getvalue() == b"jaxconv: warning: two\\nlines\n"


def test_a_reader_that_goes_away_stops_nothing():
    reading, writing = os.pipe()
    with io.TextIOWrapper(open(writing, "wb"), encoding="utf-8") as stream:
        wrapped = terminal._Stream(stream, writing)
        os.close(reading)
        for _ in range(3):
            print("x" * 99_999, file=wrapped, flush=True)


def test_an_interrupt_that_python_drops_arrives_all_the_same():
    """jax has a callback of the garbage collector: what is raised there is dropped."""
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


HANG = """
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


def test_ctrl_c_in_the_first_second_is_one_line():
    """While modules are loaded: a module that hangs, in the place of tyro."""
    command = [sys.executable, "-c", HANG]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert told == "jaxconv: interrupted\n" and process.returncode == 130


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-", "| true"])
def test_closed_streams_are_no_error(tmp_path, closing):
    command = f"{sys.executable} -m jaxconv.cli --version {closing}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
