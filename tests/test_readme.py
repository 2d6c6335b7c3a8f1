"""The README's examples run, and print what it says they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("promoting")
README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def test_the_examples_print_what_is_written_below_them():
    """One after another, as a reader types them into one session."""
    session = {}
    assert len(EXAMPLES) == README.count("```python")
    for code, printed in EXAMPLES:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.md", "exec"), session)
        assert out.getvalue() == printed


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)


def test_the_comparison_is_there():
    table = README.split("<!-- compare_gradients -->")[1].split("<!-- end -->")[0]
    assert [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]] == [
        *("lax", "explicit", "im2col", "toeplitz", "fft", "auto", "manual")
    ]


def test_the_links_into_the_project_lead_somewhere():
    for link in re.findall(r"\]\((?!http)(.*?)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
