"""Figures that compare implementations and libraries: their errors and their times."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxconv.plot.figures import literal, literals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.testing import Comparison


def implementation_errors(comparisons: Mapping[str, "Comparison"]) -> "Figure":
    """Plot the error of each implementation against the reference, beside the rounding bound of each quantity.

    Args:
        comparisons: comparisons by title, one panel each.

    >>> from jaxconv.testing import compare
    >>> import jax.numpy as jnp
    >>> figure = implementation_errors({"sine": compare(jnp.sin, lambda x: jnp.cos(x - jnp.pi / 2), jnp.ones(3))})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['value', 'd x']
    """
    from matplotlib.figure import Figure

    rows = {title: list(dict.fromkeys(row.quantity for row in c.rows)) for title, c in comparisons.items()}
    heights = [len(quantities) for quantities in rows.values()]
    figure = Figure(figsize=(9, 0.36 * sum(heights) + 0.9 * len(rows) + 0.3), dpi=120, layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    names = list(dict.fromkeys(row.implementation for c in comparisons.values() for row in c.rows))
    exact = 1e-17  # an error of 0 is drawn here, because a logarithmic scale has no zero
    for axes, (title, comparison) in zip(panels, comparisons.items(), strict=True):
        for row in comparison.rows:
            y, k = rows[title].index(row.quantity), names.index(row.implementation)
            allowed = row.tolerance / row.max_abs_value if row.max_abs_value else np.nan
            axes.barh(y, allowed, left=exact, height=0.8, color="0.93", zorder=0)
            position = y + 0.6 * ((k + 0.5) / len(names) - 0.5)
            label = literal(row.implementation) if y == 0 else None
            axes.plot(max(row.max_rel_error, exact), position, "o", ms=4.5, color=f"C{k}", label=label)
        axes.set(xscale="log", yticks=range(len(rows[title])), yticklabels=literals(rows[title]))
        axes.set_title(literal(f"{title}: {comparison.dtype}, against {comparison.reference}"), loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.4)
    panels[0].set_xlim(exact / 2, None)  # after plotting: the shared axis then covers the errors of every panel
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", fontsize=8, ncols=len(names), frameon=False)
    panels[-1].set_xlabel("max error / max |entry| (gray: rounding bound; left edge: exact)")
    return figure


def relative_times(seconds: Mapping[str, Mapping[str, float]], *, title: str = "") -> "Figure":
    """Plot the time of each implementation relative to the fastest one, case by case.

    Args:
        seconds: for each case, the seconds by implementation; a missing one was not measured.
        title: figure title.

    >>> figure = relative_times({"3×3": {"lax": 0.2, "explicit": 0.1}})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
    [2.0, 1.0]
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in seconds.values() for name in row))
    figure = Figure(figsize=(9, 0.2 * len(seconds) * len(names) + 1.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(seconds.values()):
        fastest = min(row.values())
        for k, name in enumerate(names):
            if name in row:
                position = y + 0.85 * ((k + 0.5) / len(names) - 0.5)
                label = literal(name) if y == 0 else None
                axes.barh(position, row[name] / fastest, height=0.8 / len(names), color=f"C{k}", label=label)
    axes.axvline(3, color="0.4", lw=0.8, ls="--")
    axes.set(xscale="log", yticks=range(len(seconds)), yticklabels=literals(seconds), title=literal(title))
    axes.set_xlabel("time relative to the fastest (dashed: 3×)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def step_times(
    milliseconds: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, float],
    *,
    title: str = "",
    against: str = "the fastest's",
    highlight: str = "jaxconv",
) -> "Figure":
    """Plot step times, one panel per case: bars relative to a baseline, labeled with the milliseconds.

    Args:
        milliseconds: for each case, the milliseconds by implementation, drawn in this order.
        baseline: for each case, the milliseconds that the bars are relative to; marked by a dashed line.
        title: figure title.
        against: name of the baseline in the axis label, a possessive such as ``"torch's"``.
        highlight: prefix of the names that are drawn in blue and bold.

    >>> figure = step_times({"lenet5": {"jaxconv step": 6.0, "torch": 4.0}}, {"lenet5": 4.0})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches], figure.axes[0].texts[0].get_text()
    ([1.5, 1.0], '6.00 ms, 1.50 ×')
    """
    from matplotlib.figure import Figure

    columns = 1 if len(milliseconds) == 1 else 2
    max_bars = max(map(len, milliseconds.values()))
    rows = -(-len(milliseconds) // columns)
    figure = Figure(figsize=(5.2 * columns, rows * (0.27 * max_bars + 0.55) + 0.9), dpi=120, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    longest = max(max(row.values()) / baseline[case] for case, row in milliseconds.items())
    for axes, (case, row) in zip(panels, milliseconds.items(), strict=False):
        for y, (name, ms) in enumerate(row.items()):
            multiple = ms / baseline[case]
            highlighted = name.startswith(highlight)
            # Blue and gray differ in lightness as well: readable in print and with color blindness.
            axes.barh(y, multiple, height=0.75, color="#0072b2" if highlighted else "0.72")
            words = f"{ms:.{2 if ms < 10 else 1 if ms < 100 else 0}f} ms, {multiple:.2f} ×"
            text = axes.text(multiple + 0.01 * longest, y, words, va="center", fontsize=8)
            background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            text.set(weight="bold" if highlighted else "normal", bbox=background)
        axes.axvline(1, color="0.25", lw=0.9, ls="--", zorder=2)
        axes.set_yticks(range(len(row)), literals(row), fontsize=9)
        axes.set_title(literal(case), loc="left", fontsize=10)
        axes.set_ylim(max_bars - 0.4, -0.6)
        axes.set_xlim(0, 1.3 * longest)  # leaves space for the text of the longest bar
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=True)
    for axes in panels[len(milliseconds) :]:
        axes.set_visible(False)
    figure.suptitle(literal(title))
    figure.supxlabel(f"time relative to {literal(against)} (dashed)", fontsize=9)
    return figure
