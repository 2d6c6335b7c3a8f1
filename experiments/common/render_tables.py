"""Render the tables of ``experiments/`` from the records, and the sentence in each study's docstring.

    python experiments/common/render_tables.py  # after a study ran with --record, or a lecture's row got a test

It writes ``experiments/README.md`` (what each study claims and what it measured, from the JSON files in ``results/``),
``experiments/LECTURES.md`` (for each row of the five lectures, the tests and studies that name it) and the paragraph
"Measured …" of every study that has a record. A test holds all of them equal to what this would write.
"""

import ast
import functools
import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
EXPERIMENTS, TESTS = PROJECT / "experiments", PROJECT / "tests"
LECTURES = {
    "000": "One Fourth Labs",
    "001": "CNN in-depth",
    "002": "pra-sâmi",
    "003": "Shah & Ghosh",
    "004": "Zarei",
}
ROW = re.compile(r"\b(00[0-4])-(\d\d)\b")
WIDTH = 120


class Script(NamedTuple):
    """A study: its file, what its docstring says, and what it recorded."""

    path: Path
    doc: str
    record: dict[str, Any] | None

    @property
    def claim(self) -> str:
        """The docstring's first paragraph."""
        return " ".join(self.doc.split("\n\n")[0].split())


def scripts() -> list[Script]:
    """Every study there is, by name; a file that is a part of another has no ``__main__`` and is none."""
    found = []
    for path in sorted(EXPERIMENTS.glob("*.py")):
        source, record = path.read_text(), path.parent / "results" / f"{path.stem}.json"
        if '__name__ == "__main__"' in source:
            said = json.loads(record.read_text()) if record.exists() else None
            found.append(Script(path, ast.get_docstring(ast.parse(source)) or "", said))
    return found


def readme(studies: list[Script]) -> str:
    """``experiments/README.md``."""
    head = """# Experiments

Each script is a claim with its evidence: its docstring has the claim, the lectures' rows, the commands and what came of
them; it leaves its results as JSON and its figures in `runs/`. Numbers are means ± standard deviations over seeds;
choices were made on validation images, and test images were scored once.

```bash
pip install -e ".[experiments]"
python experiments/pooling.py --help
python experiments/pooling.py --smoke      # seconds, to see that it runs
python experiments/pooling.py              # the real thing
```

This page is made by `python experiments/common/render_tables.py` of the JSON files in [`results/`](results/), which the
studies wrote with `--record`. Time is that of the processor, both cores together, and where a GPU did the work that of
the clock. Where each row of the lectures is shown, tests included, is in [LECTURES.md](LECTURES.md).

| study | claim | measured, and its figure | seeds | time |
|---|---|---|---|---|
"""
    return head + "".join(f"| {' | '.join(row_of(study))} |\n" for study in studies)


def row_of(study: Script) -> list[str]:
    name, record = study.path.stem, study.record
    link = f"[`{name}`]({name}.py)"
    if record is None:
        return [link, cell(study.claim), "not recorded here: see its docstring", "", ""]
    picture = f"results/{name}.png"
    shown = f'<br><br><a href="{picture}"><img src="{picture}" width="360" alt="{name}"></a>'
    figure = shown if (EXPERIMENTS / picture).exists() else ""
    seeds = str(record["config"].get("num_seeds", ""))  # what trains nothing has none
    return [link, cell(study.claim), cell(record["summary"]) + figure, seeds, time_of(record)]


def cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def time_of(record: dict[str, Any]) -> str:
    seconds = record["seconds" if record["device"].startswith("gpu") else "cpu_seconds"]
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def with_measured(source: str, record: dict[str, Any]) -> str:
    """A study's source, with what it recorded as the paragraph "Measured …" of its docstring."""
    seeds = record["config"].get("num_seeds")
    trained = "" if seeds is None else " with one seed" if seeds == 1 else f" with {seeds} seeds"
    kind = "" if record["device"].startswith("gpu") else " of processor time"
    machine = f"{record['device']}, jax {record['versions']['jax']}, {time_of(record)}{kind}"
    paragraph = textwrap.fill(f"Measured{trained} ({machine}): {record['summary']}", WIDTH, break_long_words=False)
    return re.sub(r"^Measured.*?(?=\n\n)", lambda _: paragraph, source, count=1, flags=re.MULTILINE | re.DOTALL)


@functools.cache
def places() -> dict[str, list[str]]:
    """For each row of the lectures, links to the studies and the tests that name it."""
    rows: dict[str, str] = json.loads((TESTS / "lectures" / "claims.json").read_text())
    found: dict[str, list[str]] = {row: [] for row in rows}
    for study in scripts():
        for row in dict.fromkeys("-".join(each) for each in ROW.findall(study.doc)):
            found[row].append(f"[`{study.path.name}`]({study.path.name})")
    for path in sorted(TESTS.rglob("test_*.py")):
        source = path.read_text()
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                for row in rows_of(function.name, ast.get_source_segment(source, function) or ""):
                    link = f"../{path.relative_to(PROJECT).as_posix()}"
                    found[row].append(f"[`{path.stem}::{function.name}`]({link})")
    return found


def rows_of(name: str, source: str) -> list[str]:
    """The rows that a test names: ``test_000_11_and_12_pooling…`` in its name, others in its text.

    >>> rows_of("test_000_11_and_12_pooling", "def test_000_11_and_12_pooling(): 'see 001-11'")
    ['000-11', '000-12', '001-11']
    """
    named = re.match(r"test_(00[0-4])((?:_\d\d|_and(?=_\d\d))+)", name)
    own = [f"{named[1]}-{number}" for number in re.findall(r"\d\d", named[2])] if named else []
    return list(dict.fromkeys([*own, *("-".join(each) for each in ROW.findall(source))]))


def lectures() -> str:
    """``experiments/LECTURES.md``."""
    rows: dict[str, str] = json.loads((TESTS / "lectures" / "claims.json").read_text())
    lines = [
        "# The five lectures, row by row",
        "",
        "What each lecture says, and the tests and studies that show it. Where a lecture errs, its test says so.",
        "Made by `python experiments/common/render_tables.py`; a test fails when a row is shown nowhere.",
    ]
    lecture, found = None, places()
    for row, said in rows.items():
        if row[:3] != lecture:
            lecture = row[:3]
            lines += [
                "",
                f"## {lecture}: {LECTURES[lecture]}",
                "",
                "| row | the lecture says | where |",
                "|---|---|---|",
            ]
        lines.append(f"| {row} | {cell(said)} | {'<br>'.join(found[row])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    studies = scripts()
    for study in studies:
        if study.record is not None:
            study.path.write_text(with_measured(study.path.read_text(), study.record))
    studies = scripts()  # again, with what was written just now
    (EXPERIMENTS / "README.md").write_text(readme(studies))
    (EXPERIMENTS / "LECTURES.md").write_text(lectures())
    missing = [study.path.stem for study in studies if study.record is None]
    nowhere = [row for row, found in places().items() if not found]
    print(f"{len(studies)} studies; without a record: {', '.join(missing) or 'none'}")
    print(f"rows of the lectures that are shown nowhere: {', '.join(nowhere) or 'none'}")


if __name__ == "__main__":
    main()
