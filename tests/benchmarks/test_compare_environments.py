"""``benchmarks/compare_environments.py``: environments, ratios, and an end-to-end run."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import compare_environments
from jaxconv.errors import InputError

ROOT = Path(compare_environments.__file__).parents[1]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.compare_environments", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_two_environments_are_interleaved(tmp_path):
    """One environment sets a variable with ``env``."""
    json_path = tmp_path / "times.json"
    other = f"env XLA_FLAGS=--xla_backend_optimization_level=1 {sys.executable}"
    options = ["--models", "mlp", "--mode", "step", "--rounds", "2", "--json", str(json_path)]
    completed = run(f"one={sys.executable}", f"other={other}", *options)
    assert completed.returncode == 0, completed.stderr
    assert f"one: python {sys.version.split()[0]}, jax {jax.__version__}" in completed.stdout
    assert "mlp: a training step" in completed.stdout and completed.stdout.endswith(f"saved in {json_path}\n")
    times = json.loads(json_path.read_text())["milliseconds"]["mlp"]
    assert [*times] == ["one, jaxconv step", "other, jaxconv step"]
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in times.values())


def test_table_ratio_is_median_of_rounds():
    """A slow second round affects both environments and cancels in the ratio."""
    text = compare_environments.table("mlp", {"one": [1.0, 8.0, 1.0], "other": [2.0, 16.0, 1.5]})
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert lines == [
        ["one", "1000.00", "1000.00", "8000.00", "1.000"],
        ["other", "2000.00", "1500.00", "16000.00", "2.000"],
    ]


@pytest.mark.parametrize("arguments", [(), ("python",), ("=python",), ("a=",), ("a=python", "a=python3")])
def test_parse_environments_rejects_invalid_arguments(arguments):
    with pytest.raises(InputError, match=r"NAME=COMMAND"):
        compare_environments.parse_environments(arguments)


def test_missing_environment_exits_with_one_line():
    completed = run("none=python-that-is-not-there", "--models", "mlp")
    assert completed.returncode == 1 and completed.stderr.count("\n") == 1
    assert "compare_environments: none: python-that-is-not-there does not run" in completed.stderr
