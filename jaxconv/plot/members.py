"""How much better several networks are together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def against_members(
    accuracy: Mapping[int, Sequence[float]], *, measure: str = "test accuracy", title: str = ""
) -> "Figure":
    """Accuracy against how many networks answer together: the mean over all choices of so many, and the range.

    Args:
        accuracy: for each number of networks, that of every choice of so many; with 1, of each network alone.
        measure: what it is.
        title: above all.

    Raises:
        InputError: there is nothing for one network alone.

    Lecture row 004-16.

    >>> figure = against_members({1: [0.8, 0.9], 2: [0.95]})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xlabel()
    ([0.85, 0.95], 'networks together')
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not accuracy.get(1):
        raise InputError("against_members: the accuracy of each network alone, under 1, is wanted")
    counts = sorted(accuracy)
    means, least, most = ([float(of(accuracy[count])) for count in counts] for of in (np.mean, np.min, np.max))
    figure = Figure(figsize=(5.6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(counts, means, "o-", ms=5, color="tab:blue", label="together, mean of all choices")
    axes.fill_between(counts, least, most, color="tab:blue", alpha=0.15, lw=0, label="from the worst to the best")
    alone = f"one alone, mean: {means[0]:.4f}"
    axes.axhline(means[0], color="tab:orange", ls="--", label=alone)
    axes.set(xlabel="networks together", ylabel=literal(measure))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.suptitle(literal(title), fontsize=10)
    return figure
