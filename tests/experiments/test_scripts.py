"""The studies' records: the tables, and each study's docstring, say what the recorded JSON holds, and nothing else."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from common import render_tables
from common.study import StudyOptions

PROJECT = Path(__file__).parents[2]
EXPERIMENTS = PROJECT / "experiments"
STUDIES = {study.path.stem: study for study in render_tables.load_experiments()}
RECORDED = {name: study for name, study in STUDIES.items() if study.record is not None}
ROWS = json.loads((PROJECT / "tests" / "lectures" / "claims.json").read_text())


def test_every_study_has_a_record_and_every_record_a_study():
    assert set(STUDIES) == set(RECORDED)
    assert {path.stem for path in (EXPERIMENTS / "results").glob("*.json")} == set(RECORDED)
    assert {path.stem for path in (EXPERIMENTS / "results").glob("*.png")} <= set(RECORDED)


def test_the_table_of_studies_is_the_one_that_the_records_make():
    assert (EXPERIMENTS / "README.md").read_text() == render_tables.render_readme(list(STUDIES.values()))


def test_the_table_has_every_study_and_the_numbers_of_its_record():
    """By another way than the one that made it: a line by a line."""
    lines = {
        match[1]: line
        for line in (EXPERIMENTS / "README.md").read_text().splitlines()
        if (match := re.match(r"\| \[`(\w+)`\]", line))
    }
    assert set(lines) == set(STUDIES)
    for name, study in RECORDED.items():
        said = re.findall(r"\d+\.\d+", study.record["summary"])
        assert said == re.findall(r"\d+\.\d+", lines[name].split(" | ")[2]), name


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_record_says_in_a_sentence_what_its_numbers_are(name):
    record = RECORDED[name].record
    module = importlib.import_module(name)
    assert module.summarize_results(record["results"]) == record["summary"]
    assert " ".join(record["summary"].split()) in " ".join(RECORDED[name].doc.split()), "run common/render_tables.py"


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_record_is_of_a_real_run_and_of_no_place(name):
    record = RECORDED[name].record
    assert not record["config"]["smoke"] and record["config"]["output_dir"] is None
    assert record["num_seeds"] == record["config"].get("num_seeds", 1)
    assert {"jax", "jaxconv", "numpy", "python"} <= set(record["versions"])
    assert not re.search(r'"(/|\.\./|~)', json.dumps(record)), "a path of the machine that it ran on"
    picture = EXPERIMENTS / "results" / f"{name}.png"
    assert not picture.exists() or picture.stat().st_size < 300_000
    assert (EXPERIMENTS / "results" / f"{name}.json").stat().st_size < 100_000


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_study_says_what_it_claims_and_how_to_run_it(name):
    source = (EXPERIMENTS / f"{name}.py").read_text()
    doc = ast.get_docstring(ast.parse(source))
    assert f"python experiments/{name}.py --smoke" in doc
    assert "\n\nMeasured" in doc
    assert "Claim" in doc
    assert len(source.splitlines()) <= 300


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_its_options_are_a_studys_and_smoke_changes_some(name):
    config = importlib.import_module(name).Config
    assert issubclass(config, StudyOptions)
    assert config.SMOKE and config(smoke=True).reduced() != config(smoke=True)


def test_the_rows_of_the_lectures_are_where_the_table_says():
    assert (EXPERIMENTS / "LECTURES.md").read_text() == render_tables.render_lectures()


def test_no_row_of_the_lectures_is_missing():
    counts = {"000": 24, "001": 27, "002": 31, "003": 27, "004": 28}
    assert list(ROWS) == [f"{lecture}-{n:02d}" for lecture, count in counts.items() for n in range(1, count + 1)]
    assert [row for row, found in render_tables.links_by_row().items() if not found] == []


@pytest.mark.parametrize("row", ["000-11", "001-04", "004-14"])
def test_a_row_is_found_where_it_is_named(row):
    """Looked for in the files themselves."""
    for link in render_tables.links_by_row()[row]:
        shown, path = re.fullmatch(r"\[`(.*)`\]\((.*)\)", link).groups()
        source = (EXPERIMENTS / path).read_text()
        number = row.replace("-", "_")
        assert row in source or f"test_{number}" in source
        assert "::" not in shown or f"def {shown.split('::')[1]}(" in source
    assert render_tables.links_by_row()[row]


def test_a_test_names_its_rows():
    assert render_tables.lecture_rows("test_000_11_and_12_pooling", "") == ["000-11", "000-12"]
    assert render_tables.lecture_rows("test_003_05_pads_2_and_3", "") == ["003-05"]
    assert render_tables.lecture_rows("test_x", "def test_x():\n    'Rows 001-04 and 000-08, of 2000-11-05.'") == [
        "001-04",
        "000-08",
    ]
    assert render_tables.lecture_rows("test_1_to_9", "") == []


def test_the_sentence_of_a_docstring_is_renewed_and_nothing_else():
    record = {
        "config": {"num_seeds": 3},
        "device": "cpu",
        "versions": {"jax": "1.2"},
        "cpu_seconds": 600,
        "summary": "max 0.9 ± 0.1, " * 12 + r"and \1.",
    }
    source = '"""A.\n\nMeasured: not\nyet.\n\n    Measured: stays\n\nB."""\n\nMeasured = 1\n\n'
    renewed = render_tables.update_measured(source, record)
    assert renewed.startswith(
        '"""A.\n\nMeasured with 3 seeds (cpu, jax 1.2, 10 min of processor time): max 0.9 ± 0.1, max'
    )
    assert renewed.endswith(r"and \1." + '\n\n    Measured: stays\n\nB."""\n\nMeasured = 1\n\n')
    assert max(map(len, renewed.splitlines())) <= 120
    assert render_tables.update_measured(renewed, record) == renewed

    gpu = render_tables.update_measured(
        source, record | {"device": "gpu (H)", "seconds": 60}
    )  # whose host only waits for it
    assert gpu.startswith('"""A.\n\nMeasured with 3 seeds (gpu (H), jax 1.2, 60 s): max 0.9')
