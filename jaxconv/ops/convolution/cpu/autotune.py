"""The choice of a CPU's lowering for each pass: tables of measurements, and the rule by which one is read.

``measurements/`` has a table for each instruction set and version of jaxlib that was measured, by
``jaxconv bench --autotune``. In it each kind of convolution has one row a pass: the shapes that stand for the kind, the
milliseconds of every lowering that can do it, and the choice.

The table that is read is that of the processor's instruction set, or :data:`DEFAULT` where that was not measured (on
arm64, say); of its versions of jaxlib the newest that is not newer than the installed one, or else the oldest.
"""

import functools
from importlib import resources
from pathlib import Path
from typing import Any

from jaxconv._compat import jaxlib_version, version_numbers
from jaxconv.ops.convolution.primitives import FACTORS
from jaxconv.runtime import instruction_set
from jaxconv.utils.files import read_json

FEW_CHANNELS = 4  # more would make a sum of too many terms
FEW_FILTERS = 4  # of a channel that is a group
SEVERAL_FILTERS = 16  # of a single channel
FEW_GROUPS = 32  # more would take long to compile: the library makes a convolution of each
FOLDER = Path(str(resources.files(__package__) / "measurements"))
DEFAULT = "avx2"  # for an instruction set that was not measured

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


def conv_category(channels: int, filters: int, groups: int) -> str:
    """The kind of a convolution, by the channels and filters of one group.

    >>> conv_category(1, 32, 1), conv_category(3, 32, 1), conv_category(16, 16, 1), conv_category(1, 1, 128)
    ('one channel', 'few channels', 'dense', 'depthwise')
    """
    if groups == 1:
        if channels > 1:
            return "few channels" if channels <= FEW_CHANNELS else "dense"
        return "one channel" if filters >= SEVERAL_FILTERS else "one channel, few filters"
    if min(channels, filters) == 1 and max(channels, filters) <= FEW_FILTERS:
        return "depthwise"
    return "grouped" if groups <= FEW_GROUPS else "many groups"


def supported_lowerings(wanted: str, case: str) -> tuple[str, ...]:
    """The lowerings that can do a pass of this kind.

    >>> supported_lowerings("y", "many groups")
    ('products',)
    """
    return ABLE[case][wanted]


def best_lowering(wanted: str, case: str) -> str:
    """The lowering to take for a pass.

    Args:
        wanted: what the pass gives: ``"y"``, ``"kernel"`` or ``"x"``.
        case: one of :data:`CASES`.

    >>> best_lowering("y", "dense")
    'library'
    """
    return _choices()[wanted, case]


@functools.cache
def _choices() -> dict[tuple[str, str], str]:
    return {(row["pass"], row["case"]): row["choice"] for row in load_table()["rows"]}


def load_table() -> dict[str, Any]:
    """The table for this process: where, when and by which command it was measured, and its rows.

    >>> sorted(load_table())
    ['command', 'emulated', 'instruction_set', 'machine', 'rows', 'versions']
    """
    return read_json(file_in_use(), dict[str, Any])


def file_in_use() -> Path:
    """The file of the table for this process."""
    return nearest(instruction_set(), jaxlib_version())


def file_of(instruction_set: str, jaxlib: str) -> Path:
    """The file of the table that is measured with an instruction set and a jaxlib.

    >>> file_of("avx512", "0.12.0.1").name
    'avx512-jaxlib-0.12.json'
    """
    major, minor = _version(jaxlib)
    return FOLDER / f"{instruction_set}-jaxlib-{major}.{minor}.json"


def nearest(instruction_set: str, jaxlib: str) -> Path:
    """The file whose table is read with an instruction set and a jaxlib.

    >>> nearest("avx512", "0.10.2").name, nearest("other", "0.9.0").name
    ('avx512-jaxlib-0.10.json', 'avx2-jaxlib-0.10.json')
    """
    prefix = f"{instruction_set}-jaxlib-"
    files = {_version(file.stem.removeprefix(prefix)): file for file in FOLDER.glob(f"{prefix}*.json")}
    if not files:
        return nearest(DEFAULT, jaxlib)
    not_newer = [version for version in files if version <= _version(jaxlib)]
    return files[max(not_newer, default=min(files))]


def _version(jaxlib: str) -> tuple[int, ...]:
    """Major and minor."""
    return version_numbers(jaxlib)[:2]
