"""Selection of the CPU lowering of each pass from tables of measurements.

``measurements/`` has one table per measured instruction set and jaxlib version, written by ``jaxconv bench
--autotune``. A table has one row per category of convolution and pass: the measured shapes, the milliseconds of every
supported lowering, and the choice.

The table in use is that of the processor's instruction set, or of :data:`DEFAULT_INSTRUCTION_SET` if that was not
measured (such as arm64). Its jaxlib version is the newest that does not exceed the installed one, or else the oldest.
"""

import functools
from importlib import resources
from pathlib import Path
from typing import Any

from jaxconv._compat import jaxlib_version, version_numbers
from jaxconv.ops.convolution.primitives import FACTORS
from jaxconv.runtime import instruction_set
from jaxconv.utils.files import read_json

MAX_FEW_CHANNELS = 4  # more channels would make a sum of too many terms
MAX_DEPTHWISE_MULTIPLIER = 4  # filters per group of one channel
MIN_SEVERAL_FILTERS = 16  # filters of a single channel
MAX_FEW_GROUPS = 32  # more groups compile slowly: the library has one convolution per group
FOLDER = Path(str(resources.files(__package__) / "measurements"))
DEFAULT_INSTRUCTION_SET = "avx2"  # for instruction sets that were not measured

ALL_LOWERINGS = ("library", "taps", "products")
WITHOUT_TAPS = ("library", "products")
# Lowerings that support each category and pass: taps where the sum over channels is short, the library where there are
# not too many groups.
SUPPORTED: dict[str, dict[str, tuple[str, ...]]] = {
    "one channel": {"y": ALL_LOWERINGS, "kernel": WITHOUT_TAPS, "x": WITHOUT_TAPS},
    "one channel, few filters": {"y": ALL_LOWERINGS, "kernel": WITHOUT_TAPS, "x": WITHOUT_TAPS},
    "few channels": {"y": ALL_LOWERINGS, "kernel": WITHOUT_TAPS, "x": WITHOUT_TAPS},
    "dense": dict.fromkeys(FACTORS, WITHOUT_TAPS),
    "depthwise": dict.fromkeys(FACTORS, ALL_LOWERINGS),
    "grouped": dict.fromkeys(FACTORS, WITHOUT_TAPS),
    "many groups": dict.fromkeys(FACTORS, ("products",)),
}
CASES = tuple(SUPPORTED)


def conv_category(channels: int, filters: int, groups: int) -> str:
    """Return the category of a convolution, from the channels and filters of one group.

    >>> conv_category(1, 32, 1), conv_category(3, 32, 1), conv_category(16, 16, 1), conv_category(1, 1, 128)
    ('one channel', 'few channels', 'dense', 'depthwise')
    """
    if groups == 1:
        if channels > 1:
            return "few channels" if channels <= MAX_FEW_CHANNELS else "dense"
        return "one channel" if filters >= MIN_SEVERAL_FILTERS else "one channel, few filters"
    if min(channels, filters) == 1 and max(channels, filters) <= MAX_DEPTHWISE_MULTIPLIER:
        return "depthwise"
    return "grouped" if groups <= MAX_FEW_GROUPS else "many groups"


def supported_lowerings(output: str, category: str) -> tuple[str, ...]:
    """Return the lowerings that support a pass of this category.

    >>> supported_lowerings("y", "many groups")
    ('products',)
    """
    return SUPPORTED[category][output]


def best_lowering(output: str, category: str) -> str:
    """Return the lowering that the table selects for a pass.

    Args:
        output: output of the pass: ``"y"``, ``"kernel"`` or ``"x"``.
        category: one of :data:`CASES`.

    >>> best_lowering("y", "dense")
    'library'
    """
    return _choices()[output, category]


@functools.cache
def _choices() -> dict[tuple[str, str], str]:
    return {(row["pass"], row["case"]): row["choice"] for row in load_table()["rows"]}


def load_table() -> dict[str, Any]:
    """Load the table of this process: its rows, and the machine, versions and command of the measurement.

    >>> sorted(load_table())
    ['command', 'emulated', 'instruction_set', 'machine', 'rows', 'versions']
    """
    return read_json(file_in_use(), dict[str, Any])


def file_in_use() -> Path:
    """Path of the table of this process."""
    return nearest(instruction_set(), jaxlib_version())


def file_of(instruction_set: str, jaxlib: str) -> Path:
    """Path of the table that is written for an instruction set and a jaxlib version.

    >>> file_of("avx512", "0.12.0.1").name
    'avx512-jaxlib-0.12.json'
    """
    major, minor = _version(jaxlib)
    return FOLDER / f"{instruction_set}-jaxlib-{major}.{minor}.json"


def nearest(instruction_set: str, jaxlib: str) -> Path:
    """Path of the table that is read for an instruction set and a jaxlib version.

    >>> nearest("avx512", "0.10.2").name, nearest("other", "0.9.0").name
    ('avx512-jaxlib-0.10.json', 'avx2-jaxlib-0.10.json')
    """
    prefix = f"{instruction_set}-jaxlib-"
    files = {_version(file.stem.removeprefix(prefix)): file for file in FOLDER.glob(f"{prefix}*.json")}
    if not files:
        return nearest(DEFAULT_INSTRUCTION_SET, jaxlib)
    not_newer = [version for version in files if version <= _version(jaxlib)]
    return files[max(not_newer, default=min(files))]


def _version(jaxlib: str) -> tuple[int, ...]:
    """Return the major and minor version."""
    return version_numbers(jaxlib)[:2]
