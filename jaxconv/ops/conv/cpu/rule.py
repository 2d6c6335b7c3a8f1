"""Which lowering a CPU takes for which pass: a table of measurements, ``rule.json``, and how to read it.

``jaxconv bench --tune`` measures it anew. Each kind of convolution has one row a pass: the shapes that stand for the
kind, the milliseconds of every lowering that can do it, and the choice.
"""

import functools
import json
from importlib import resources
from typing import Any

from jaxconv.ops.conv.passes import FACTORS

FEW_CHANNELS = 4  # more would make a sum of too many terms
FEW_FILTERS = 4  # of a channel that is a group
SEVERAL_FILTERS = 16  # of a single channel
FEW_GROUPS = 32  # more would take long to compile: the library makes a convolution of each
FILE = resources.files(__package__) / "rule.json"

ALL = ("library", "taps", "products")
UNTAPPED = ("library", "products")
# What can do each kind, pass by pass. The taps can where a sum over channels is short, the library where there are not
# too many groups.
ABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "one channel": {"y": ALL, "kernel": UNTAPPED, "x": UNTAPPED},
    "one channel, few filters": {"y": ALL, "kernel": UNTAPPED, "x": UNTAPPED},
    "few channels": {"y": ALL, "kernel": UNTAPPED, "x": UNTAPPED},
    "dense": dict.fromkeys(FACTORS, UNTAPPED),
    "depthwise": dict.fromkeys(FACTORS, ALL),
    "grouped": dict.fromkeys(FACTORS, UNTAPPED),
    "many groups": dict.fromkeys(FACTORS, ("products",)),
}
CASES = tuple(ABLE)


def case(channels: int, filters: int, groups: int) -> str:
    """The kind of a convolution, by the channels and filters of one group.

    >>> case(1, 32, 1), case(3, 32, 1), case(16, 16, 1), case(1, 1, 128)
    ('one channel', 'few channels', 'dense', 'depthwise')
    """
    if groups == 1:
        if channels > 1:
            return "few channels" if channels <= FEW_CHANNELS else "dense"
        return "one channel" if filters >= SEVERAL_FILTERS else "one channel, few filters"
    if min(channels, filters) == 1 and max(channels, filters) <= FEW_FILTERS:
        return "depthwise"
    return "grouped" if groups <= FEW_GROUPS else "many groups"


def able(wanted: str, case: str) -> tuple[str, ...]:
    """The lowerings that can do a pass of this kind.

    >>> able("y", "many groups")
    ('products',)
    """
    return ABLE[case][wanted]


def choice(wanted: str, case: str) -> str:
    """The lowering to take for a pass.

    Args:
        wanted: what the pass gives: ``"y"``, ``"kernel"`` or ``"x"``.
        case: one of :data:`CASES`.

    >>> choice("y", "dense")
    'library'
    """
    return _choices()[wanted, case]


@functools.cache
def _choices() -> dict[tuple[str, str], str]:
    return {(row["pass"], row["case"]): row["choice"] for row in table()["rows"]}


def table() -> dict[str, Any]:
    """All of ``rule.json``: where, when and by which command it was measured, and the rows."""
    return json.loads(FILE.read_text())
