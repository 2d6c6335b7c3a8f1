"""README: its examples run and print the text below them; its links and badges are correct."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("promoting")
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def test_readme_examples_print_expected_output():
    """The examples run in order, in one session."""
    session = {}
    assert len(EXAMPLES) == README.count("```python")
    for code, expected in EXAMPLES:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.md", "exec"), session)
        assert out.getvalue() == expected


def test_readme_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)


def test_readme_links_exist():
    for link in re.findall(r"\]\((?!http)(.*?)\)", README):
        assert (ROOT / link).exists(), link


def test_readme_badges_match_pyproject():
    """Badges are files of the repository, so they have to follow pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    versions = [entry.rpartition(" ")[2] for entry in project["classifiers"] if entry.startswith(prefix)]
    badges = {
        name: re.findall(r"<title>(.*)</title>", (ROOT / f".github/pictures/badge-{name}.svg").read_text())
        for name in ("python", "license")
    }
    assert badges["python"] == [f"python: {' | '.join(versions)}"]
    assert badges["license"] == [f"license: {project['license']}"]


def table(path, heading):
    """Return the cells of the table under a heading by the first cell of the row, with the column names first."""
    section = (ROOT / path).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize(
    ("heading", "page", "page_heading", "num_rows"),
    [("Speed", "docs/speed.md", "Measurements", 4), ("Results", "docs/training.md", "Results", 5)],
)
def test_readme_figures_match_docs(heading, page, page_heading, num_rows):
    """The page may have more columns, and a remark after a figure."""
    columns, *rows = table("README.md", heading).items()
    in_docs = table(page, page_heading)
    by_name = dict(zip(columns[1], zip(*(cells for _, cells in rows[1:]))))  # rows[0] is the ruler
    docs_columns = in_docs[columns[0]]
    assert len(rows) == num_rows + 1
    for name, figures in by_name.items():
        index = docs_columns.index(name if name in docs_columns else f"{name}, epoch")
        for (row, _), figure in zip(rows[1:], figures):
            assert re.match(rf"{re.escape(figure)}(?![\d.])", in_docs[row][index]), (row, name)
