"""How much data a network needs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def against_samples(
    results: Mapping[str, Mapping[int, Sequence[float]]], *, measure: str = "test accuracy", title: str = ""
) -> "Figure":
    """Accuracy against the number of training samples: each network's mean over seeds, with its standard deviation.

    Args:
        results: for each network and number of samples, the accuracy of each seed.
        measure: what it is.
        title: above all.

    Raises:
        InputError: there is no network.

    Lecture row 004-03.

    >>> figure = against_samples({"cnn": {100: [0.8, 0.9], 1000: [0.97, 0.98]}})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xscale()
    ([0.85, 0.975], 'log')
    """
    from matplotlib.figure import Figure

    if not results:
        raise InputError("against_samples: there is no network to show")
    figure = Figure(figsize=(5.2, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, found in results.items():
        samples = sorted(found)
        means = [float(np.mean(found[count])) for count in samples]
        deviations = [float(np.std(found[count], ddof=1)) if len(found[count]) > 1 else 0.0 for count in samples]
        axes.errorbar(samples, means, deviations, fmt="o-", ms=4, capsize=3, label=literal(name))
    axes.set(xscale="log", xlabel="training samples", ylabel=literal(measure))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure
