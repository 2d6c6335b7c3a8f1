"""How the numbers of a network are spread: its weights, or its feature maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError


class Histogram(NamedTuple):
    """How many numbers there are between each edge and the next.

    Attributes:
        counts: ``(bins,)``; of the finite numbers.
        edges: ``(bins + 1,)``.
        nan: how many are no number.
        infinite: how many are infinite.
    """

    counts: np.ndarray
    edges: np.ndarray
    nan: int
    infinite: int


def histograms(arrays: Mapping[str, Any], *, bins: int | Sequence[float] = 50) -> dict[str, Histogram]:
    """A histogram of every array of params, or of feature maps.

    Args:
        arrays: dicts of arrays, nested or not: params, state, what :func:`feature_maps` returns.
        bins: how many, of one width, from an array's least finite number to its largest; or their edges, and what is
            beyond them is not counted.

    Returns:
        One for each array, named ``conv1/kernel``, in the order of the dicts.

    Raises:
        InputError: no array, or no bin.

    >>> found = histograms({"conv1": {"bias": np.array([0.0, 0.1, 1.0, np.nan])}}, bins=2)
    >>> found["conv1/bias"].counts.tolist(), found["conv1/bias"].edges.tolist(), found["conv1/bias"].nan
    ([2, 1], [0.0, 0.5, 1.0], 1)
    """
    if isinstance(bins, int):
        checks.whole("histograms", 1, bins=bins)
    elif len(bins) < 2 or np.any(np.diff(bins) <= 0):
        raise InputError(f"histograms: bins={bins!r} should be a number of bins, or edges that go up")
    found: dict[str, Histogram] = {}

    def collect(path: str, tree: Any) -> None:
        if isinstance(tree, Mapping):
            for name, below in tree.items():
                collect(f"{path}/{name}" if path else str(name), below)
            return
        array = np.asarray(tree).astype(np.float64).ravel()
        finite = array[np.isfinite(array)]
        nan = int(np.isnan(array).sum())
        counts, edges = np.histogram(finite, bins)
        found[path] = Histogram(counts, edges, nan, len(array) - len(finite) - nan)

    collect("", arrays)
    if not found or "" in found:
        raise InputError("histograms: dicts of arrays are wanted, such as params, and at least one array")
    return found
