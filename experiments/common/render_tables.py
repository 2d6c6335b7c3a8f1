"""Render the tables of ``experiments/``, and the "Measured" paragraph of each docstring, from the records.

    python experiments/common/render_tables.py  # after a run with --record, or a new test of a lecture row

It writes ``experiments/README.md`` (claim and result of each experiment, from the JSON files in ``results/``),
``experiments/LECTURES.md`` (the tests and experiments of each row of the five lectures) and the paragraph "Measured …"
of every recorded experiment. Tests check that all of them are up to date.
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


class Experiment(NamedTuple):
    """An experiment: its file, its docstring, and its recorded report or None."""

    path: Path
    doc: str
    record: dict[str, Any] | None

    @property
    def claim(self) -> str:
        """First paragraph of the docstring."""
        return " ".join(self.doc.split("\n\n")[0].split())


def load_experiments() -> list[Experiment]:
    """Return all experiments, sorted by name: the files in ``experiments/`` with a ``__main__`` block."""
    experiments = []
    for path in sorted(EXPERIMENTS.glob("*.py")):
        source, record = path.read_text(), path.parent / "results" / f"{path.stem}.json"
        if '__name__ == "__main__"' in source:
            report = json.loads(record.read_text()) if record.exists() else None
            experiments.append(Experiment(path, ast.get_docstring(ast.parse(source)) or "", report))
    return experiments


def render_readme(experiments: list[Experiment]) -> str:
    """Render ``experiments/README.md``."""
    header = """# Experiments

Each script measures a claim. Its docstring states the claim, the lecture rows, the commands and the result. A run
writes its results as JSON, and its figures, to `runs/`. Numbers are means ± standard deviations over seeds. Choices
were made on validation images; test images were scored once.

```bash
pip install -e ".[experiments]"
python experiments/pooling.py --help
python experiments/pooling.py --smoke      # seconds: checks that it runs
python experiments/pooling.py              # the full experiment
```

`python experiments/common/render_tables.py` writes this page from the JSON files in [`results/`](results/), which
`--record` saves. Times are processor times, summed over both cores; of GPU runs they are wall-clock times.
[LECTURES.md](LECTURES.md) lists the tests and experiments of each lecture row.

| experiment | claim | measured, with figure | seeds | time |
|---|---|---|---|---|
"""
    return header + "".join(f"| {' | '.join(table_row(experiment))} |\n" for experiment in experiments)


def table_row(experiment: Experiment) -> list[str]:
    name, record = experiment.path.stem, experiment.record
    link = f"[`{name}`]({name}.py)"
    if record is None:
        return [link, markdown_cell(experiment.claim), "not recorded: see the docstring", "", ""]
    image = f"results/{name}.png"
    figure_html = f'<br><br><a href="{image}"><img src="{image}" width="360" alt="{name}"></a>'
    figure = figure_html if (EXPERIMENTS / image).exists() else ""
    seeds = str(record["config"].get("num_seeds", ""))  # absent if nothing is trained
    return [
        link,
        markdown_cell(experiment.claim),
        markdown_cell(record["summary"]) + figure,
        seeds,
        format_time(record),
    ]


def markdown_cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def format_time(record: dict[str, Any]) -> str:
    seconds = record["seconds" if record["device"].startswith("gpu") else "cpu_seconds"]
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def update_measured(source: str, record: dict[str, Any]) -> str:
    """Return the source of an experiment with the record in the paragraph "Measured …" of its docstring."""
    seeds = record["config"].get("num_seeds")
    trained = "" if seeds is None else " with one seed" if seeds == 1 else f" with {seeds} seeds"
    kind = "" if record["device"].startswith("gpu") else " of processor time"
    machine = f"{record['device']}, jax {record['versions']['jax']}, {format_time(record)}{kind}"
    paragraph = textwrap.fill(f"Measured{trained} ({machine}): {record['summary']}", WIDTH, break_long_words=False)
    return re.sub(r"^Measured.*?(?=\n\n)", lambda _: paragraph, source, count=1, flags=re.MULTILINE | re.DOTALL)


@functools.cache
def links_by_row() -> dict[str, list[str]]:
    """Return links to the experiments and tests of each lecture row."""
    rows: dict[str, str] = json.loads((TESTS / "lectures" / "claims.json").read_text())
    links: dict[str, list[str]] = {row: [] for row in rows}
    for experiment in load_experiments():
        for row in dict.fromkeys("-".join(groups) for groups in ROW.findall(experiment.doc)):
            links[row].append(f"[`{experiment.path.name}`]({experiment.path.name})")
    for path in sorted(TESTS.rglob("test_*.py")):
        source = path.read_text()
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                for row in lecture_rows(function.name, ast.get_source_segment(source, function) or ""):
                    link = f"../{path.relative_to(PROJECT).as_posix()}"
                    links[row].append(f"[`{path.stem}::{function.name}`]({link})")
    return links


def lecture_rows(name: str, source: str) -> list[str]:
    """Return the lecture rows of a test: ``test_000_11_and_12_pooling…`` in its name, others in its source.

    >>> lecture_rows("test_000_11_and_12_pooling", "def test_000_11_and_12_pooling(): 'see 001-11'")
    ['000-11', '000-12', '001-11']
    """
    match = re.match(r"test_(00[0-4])((?:_\d\d|_and(?=_\d\d))+)", name)
    from_name = [f"{match[1]}-{number}" for number in re.findall(r"\d\d", match[2])] if match else []
    return list(dict.fromkeys([*from_name, *("-".join(groups) for groups in ROW.findall(source))]))


def render_lectures() -> str:
    """Render ``experiments/LECTURES.md``."""
    rows: dict[str, str] = json.loads((TESTS / "lectures" / "claims.json").read_text())
    lines = [
        "# The five lectures, row by row",
        "",
        "Statements of the lectures, and the tests and experiments that check them. Tests point out errors in them.",
        "Written by `python experiments/common/render_tables.py`; a test fails if a row has no check.",
    ]
    lecture, links = None, links_by_row()
    for row, statement in rows.items():
        if row[:3] != lecture:
            lecture = row[:3]
            lines += [
                "",
                f"## {lecture}: {LECTURES[lecture]}",
                "",
                "| row | statement of the lecture | tests and experiments |",
                "|---|---|---|",
            ]
        lines.append(f"| {row} | {markdown_cell(statement)} | {'<br>'.join(links[row])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    experiments = load_experiments()
    for experiment in experiments:
        if experiment.record is not None:
            experiment.path.write_text(update_measured(experiment.path.read_text(), experiment.record))
    experiments = load_experiments()  # read again, with the updated docstrings
    (EXPERIMENTS / "README.md").write_text(render_readme(experiments))
    (EXPERIMENTS / "LECTURES.md").write_text(render_lectures())
    missing = [experiment.path.stem for experiment in experiments if experiment.record is None]
    unchecked = [row for row, links in links_by_row().items() if not links]
    print(f"experiments: {len(experiments)}; without a record: {', '.join(missing) or 'none'}")
    print(f"lecture rows without a test or an experiment: {', '.join(unchecked) or 'none'}")


if __name__ == "__main__":
    main()
