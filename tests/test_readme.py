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
