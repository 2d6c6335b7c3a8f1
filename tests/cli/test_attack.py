"""A small part of the attack on the command line; ``tests/helpers/attack/commands.py`` makes 500 lines."""

import pytest

from attack.commands import attack


@pytest.mark.parametrize("seed", [1])
def test_bad_lines_are_one_line_and_no_traceback(seed):
    wrong = [each for each in attack(40, seed) if each.fault]
    assert not wrong, "\n".join(f"{each.fault}: {each.line} {each.message[-500:]}" for each in wrong)
