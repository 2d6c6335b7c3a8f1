"""The tables and docstrings of the experiments match the recorded JSON."""

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
EXPERIMENT_SCRIPTS = {experiment.path.stem: experiment for experiment in render_tables.load_experiments()}
RECORDED = {name: experiment for name, experiment in EXPERIMENT_SCRIPTS.items() if experiment.record is not None}
ROWS = json.loads((PROJECT / "tests" / "lectures" / "claims.json").read_text())


def test_experiments_and_records_match():
    assert set(EXPERIMENT_SCRIPTS) == set(RECORDED)
    assert {path.stem for path in (EXPERIMENTS / "results").glob("*.json")} == set(RECORDED)
    assert {path.stem for path in (EXPERIMENTS / "results").glob("*.png")} <= set(RECORDED)


def test_readme_matches_rendered_table():
    assert (EXPERIMENTS / "README.md").read_text() == render_tables.render_readme(list(EXPERIMENT_SCRIPTS.values()))


def test_readme_has_all_experiments_and_their_numbers():
    """Parse the page line by line, independently of the code that rendered it."""
    lines = {
        match[1]: line
        for line in (EXPERIMENTS / "README.md").read_text().splitlines()
        if (match := re.match(r"\| \[`(\w+)`\]", line))
    }
    assert set(lines) == set(EXPERIMENT_SCRIPTS)
    for name, experiment in RECORDED.items():
        numbers = re.findall(r"\d+\.\d+", experiment.record["summary"])
        assert numbers == re.findall(r"\d+\.\d+", lines[name].split(" | ")[2]), name


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_record_summary_matches_results_and_docstring(name):
    record = RECORDED[name].record
    module = importlib.import_module(name)
    assert module.summarize_results(record["results"]) == record["summary"]
    assert " ".join(record["summary"].split()) in " ".join(RECORDED[name].doc.split()), "run common/render_tables.py"


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_record_is_full_run_without_local_paths(name):
    record = RECORDED[name].record
    assert not record["config"]["smoke"] and record["config"]["output_dir"] is None
    assert record["num_seeds"] == record["config"].get("num_seeds", 1)
    assert {"jax", "jaxconv", "numpy", "python"} <= set(record["versions"])
    assert not re.search(r'"(/|\.\./|~)', json.dumps(record)), "a local path in the record"
    image = EXPERIMENTS / "results" / f"{name}.png"
    assert not image.exists() or image.stat().st_size < 300_000
    assert (EXPERIMENTS / "results" / f"{name}.json").stat().st_size < 100_000


@pytest.mark.parametrize("name", sorted(EXPERIMENT_SCRIPTS))
def test_docstring_has_claim_command_and_result(name):
    source = (EXPERIMENTS / f"{name}.py").read_text()
    doc = ast.get_docstring(ast.parse(source))
    assert f"python experiments/{name}.py --smoke" in doc
    assert "\n\nMeasured" in doc
    assert "Claim" in doc
    assert len(source.splitlines()) <= 300


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_config_is_study_options_with_smoke_overrides(name):
    config = importlib.import_module(name).Config
    assert issubclass(config, StudyOptions)
    assert config.SMOKE and config(smoke=True).reduced() != config(smoke=True)


def test_lectures_page_matches_rendered_page():
    assert (EXPERIMENTS / "LECTURES.md").read_text() == render_tables.render_lectures()


def test_every_lecture_row_is_checked():
    counts = {"000": 24, "001": 27, "002": 31, "003": 27, "004": 28}
    assert list(ROWS) == [f"{lecture}-{n:02d}" for lecture, count in counts.items() for n in range(1, count + 1)]
    assert [row for row, links in render_tables.links_by_row().items() if not links] == []


@pytest.mark.parametrize("row", ["000-11", "001-04", "004-14"])
def test_lecture_row_links_name_the_row(row):
    """Search for the row in the linked files."""
    for link in render_tables.links_by_row()[row]:
        label, path = re.fullmatch(r"\[`(.*)`\]\((.*)\)", link).groups()
        source = (EXPERIMENTS / path).read_text()
        underscored = row.replace("-", "_")
        assert row in source or f"test_{underscored}" in source
        assert "::" not in label or f"def {label.split('::')[1]}(" in source
    assert render_tables.links_by_row()[row]


def test_lecture_rows_of_test():
    assert render_tables.lecture_rows("test_000_11_and_12_pooling", "") == ["000-11", "000-12"]
    assert render_tables.lecture_rows("test_003_05_pads_2_and_3", "") == ["003-05"]
    assert render_tables.lecture_rows("test_x", "def test_x():\n    'Rows 001-04 and 000-08, of 2000-11-05.'") == [
        "001-04",
        "000-08",
    ]
    assert render_tables.lecture_rows("test_1_to_9", "") == []


def test_update_measured_replaces_only_measured_paragraph():
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

    # The time of a GPU run is wall time, since the host only waits for the GPU.
    gpu = render_tables.update_measured(source, record | {"device": "gpu (H)", "seconds": 60})
    assert gpu.startswith('"""A.\n\nMeasured with 3 seeds (gpu (H), jax 1.2, 60 s): max 0.9')
