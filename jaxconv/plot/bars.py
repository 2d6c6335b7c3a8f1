"""Networks on several tasks, side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot.figures import literal, literals

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(
    results: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    chance: Mapping[str, float] | None = None,
    measure: str = "test accuracy",
    title: str = "",
) -> "Figure":
    """How well each network does on each task: a panel a task, a bar a network, a dot a training.

    A bar is as long as the mean, which stands beside it; its colour is the network's place in its panel.

    Args:
        results: for each task and network the accuracy from each seed, from 0 to 1.
        chance: of some tasks, what guessing gives; a dashed line is there.
        measure: what the numbers are.
        title: above all.

    Raises:
        InputError: there is no task, or a network without a number.

    >>> figure = bars({"text": {"dense": [0.5, 0.75], "conv": [1.0]}}, chance={"text": 0.5})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches], [text.get_text() for text in figure.axes[0].texts]
    ([0.625, 1.0], ['62.5 %', '100.0 %'])
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    if not results or not all(len(values) for found in results.values() for values in found.values()):
        raise InputError("bars: there is nothing to show: give every network at least one number")
    columns = min(2, len(results))
    lines = -(-len(results) // columns)
    most = max(map(len, results.values()))
    figure = Figure(figsize=(4.6 * columns, lines * (0.3 * most + 0.55) + 0.6), dpi=120, layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, squeeze=False).flat)
    for axes, (task, found) in zip(panels, results.items(), strict=False):
        for y, values in enumerate(found.values()):
            mean = float(np.mean(values))
            axes.barh(y, mean, height=0.7, color=f"C{y}", alpha=0.75)
            axes.plot(values, [y] * len(values), "o", ms=3, color="0.15")
            text = axes.text(1.03, y, f"{100 * mean:.1f} %", va="center", fontsize=8)
            text.set_clip_on(False)
        if chance and task in chance:
            axes.axvline(chance[task], color="0.25", lw=0.9, ls="--")
        axes.set_yticks(range(len(found)), literals(found), fontsize=8)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="x", labelsize=8, labelbottom=True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(literal(task), loc="left", fontsize=9)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    figure.suptitle(literal(title), fontsize=10)
    figure.supxlabel(f"{literal(measure)}{' (dashed: guessing)' if chance else ''}", fontsize=9)
    return figure
