"""Fuzzing of the command line with 40 invalid lines; ``tests/helpers/attack/commands.py`` tries 500."""

import pytest

from attack.commands import attack


@pytest.mark.parametrize("seed", [1])
def test_fuzzed_lines_print_one_line_each(seed):
    failures = [outcome for outcome in attack(40, seed) if outcome.fault]
    assert not failures, "\n".join(f"{outcome.fault}: {outcome.line} {outcome.message[-500:]}" for outcome in failures)
