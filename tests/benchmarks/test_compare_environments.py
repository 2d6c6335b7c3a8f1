"""``benchmarks/compare_environments.py``: its environments, its ratios, and a race from end to end."""

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


def test_two_environments_take_turns(tmp_path):
    """Of which one sets a variable for itself, and so has another version of what it is asked for."""
    file = tmp_path / "times.json"
    other = f"env XLA_FLAGS=--xla_backend_optimization_level=1 {sys.executable}"
    options = ["--models", "mlp", "--mode", "step", "--rounds", "2", "--json", str(file)]
    done = run(f"one={sys.executable}", f"other={other}", *options)
    assert done.returncode == 0, done.stderr
    assert f"one: python {sys.version.split()[0]}, jax {jax.__version__}" in done.stdout
    assert "mlp: a training step" in done.stdout and done.stdout.endswith(f"saved in {file}\n")
    times = json.loads(file.read_text())["milliseconds"]["mlp"]
    assert [*times] == ["one, jaxconv step", "other, jaxconv step"]
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in times.values())


def test_a_ratio_is_that_of_the_same_round():
    """A slow second round, which meets both, is no difference between them."""
    text = compare_environments.table("mlp", {"one": [1.0, 8.0, 1.0], "other": [2.0, 16.0, 1.5]})
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert lines == [
        ["one", "1000.00", "1000.00", "8000.00", "1.000"],
        ["other", "2000.00", "1500.00", "16000.00", "2.000"],
    ]


@pytest.mark.parametrize("words", [(), ("python",), ("=python",), ("a=",), ("a=python", "a=python3")])
def test_an_environment_is_a_name_and_a_command(words):
    with pytest.raises(InputError, match=r"NAME=COMMAND"):
        compare_environments.read_environments(words)


def test_an_environment_without_jax_is_an_error_of_one_line():
    done = run("none=python-that-is-not-there", "--models", "mlp")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "compare_environments: none: python-that-is-not-there does not run" in done.stderr
