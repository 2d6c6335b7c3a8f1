"""The only room that draws. Each function makes one matplotlib figure and touches no global state.

In a notebook the figure shows itself after ``%matplotlib inline``; in a script, ``figure.savefig("curves.png")``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.compare import Comparison


def curves(history: Sequence[dict[str, Any]], *, best_epoch: int, title: str = "") -> "Figure":
    """Loss and accuracy by epoch, of training and validation, with the best epoch marked.

    Training is measured while the parameters change and with dropout, so in early epochs it may look worse than
    validation.

    Args:
        history: the records of :func:`jaxconv.train.fit`.
        best_epoch: the one whose parameters were kept.
        title: above both.

    >>> record = {"epoch": 1, "loss": 0.5, "accuracy": 0.8, "val_loss": 0.4, "val_accuracy": 0.9}
    >>> [axes.get_ylabel() for axes in curves([record], best_epoch=1).axes]
    ['loss', 'accuracy']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    epochs = [record["epoch"] for record in history]
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        validation = [record[f"val_{measure}"] for record in history]
        best = validation[best_epoch - 1]
        axes.plot(epochs, [record[measure] for record in history], "o-", ms=4, color="tab:blue", label="training")
        axes.plot(epochs, validation, "o-", ms=4, color="tab:orange", label="validation")
        axes.plot(best_epoch, best, "o", ms=10, mfc="none", color="tab:orange", label=f"kept: {best:.4f}")
        axes.set(xlabel="epoch", ylabel=measure, yscale="log" if measure == "loss" else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    return figure


def mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], *, most: int = 32
) -> "Figure":
    """The images that were classified wrongly, the surest mistakes first: the true class, and what was said.

    Args:
        images: ``(N, H, W, C)`` uint8. Three channels are a colour; of more, the first three are shown, and of two,
            the first, in grey.
        labels: ``(N,)`` true class numbers.
        probabilities: ``(N, classes)``.
        classes: their names.
        most: how many to show.

    >>> figure = mistakes(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), np.array([[.9, .1], [.8, .2]]), "ab")
    >>> [axes.get_title() for axes in figure.axes if axes.images]
    ['b\\n→ a 80%']
    """
    from matplotlib.figure import Figure

    said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(said != labels)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    columns = min(8, max(4, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.4 * columns, 1.8 * rows + 0.4), dpi=110, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, shown, strict=False):
        pixels = images[i, ..., :3] if images.shape[-1] >= 3 else images[i, ..., 0]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{classes[labels[i]]}\n→ {classes[said[i]]} {sure[i]:.0%}", fontsize=9)
    if len(wrong):
        which = f", the {most} surest" if len(wrong) > most else ""
        figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong{which}: true class → what the network said")
    else:
        figure.suptitle(f"no mistake on {len(labels):,} images")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """How often each class was taken for each: a row a true class, a column what was said, the diagonal what is right.

    A cell's colour is its share of the row, so that rare classes show as well as common ones. The scale is bent, so
    that one mistake in a hundred is seen beside the diagonal. Up to 20 classes, the counts stand in the cells.

    Args:
        counts: ``(classes, classes)``, from :func:`jaxconv.train.confusion_matrix`.
        classes: their names.
        title: above all, over how many were right.

    Raises:
        InputError: counts that have not a row and a column for every name.

    >>> figure = confusion(np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['3', '1', '2']
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts, count = np.asarray(counts), len(classes)
    if counts.shape != (count, count):
        raise InputError(f"confusion: counts {counts.shape} should be ({count}, {count}), for {count} names of classes")
    written, longest = count <= 20, max(map(len, classes))
    side = min(max(3.6, count * min(max(0.56, 0.085 * longest), 0.85)), 11) if written else min(0.14 * count + 3, 17)
    cell = 72 * side / count  # in points, as letters are; one is 0.6 times as wide as it is high
    size = 9 if written else max(4, min(8, 0.75 * cell))
    width = longest * 0.6 * size
    turned = width > 0.95 * cell
    figsize = side + width / 72 + 1.3, side + turned * width / 72 + 0.8
    figure = Figure(figsize=figsize, dpi=120, layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    if written:
        digits = min(8, 0.9 * cell / (0.6 * len(f"{counts.max():,}")))
        for (i, j), n in np.ndenumerate(counts):
            if n:
                color = "white" if share[i, j] > 0.3 else "0.15"
                axes.text(j, i, f"{n:,}", ha="center", va="center", fontsize=digits, color=color)
    named = range(0, count, max(1, round(5 / cell)))  # of a thousand classes, not every name has room
    names = [classes[i] for i in named]
    axes.set_yticks(named, names, fontsize=size)
    axes.set_xticks(named, names, fontsize=size, rotation=90 * turned)
    axes.tick_params(length=0)
    axes.set(xlabel="said", ylabel="true class")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class")
    axes.set_title(f"{title}\n{np.trace(counts):,} of {counts.sum():,} right".lstrip("\n"))
    return figure


def errors(comparisons: Mapping[str, "Comparison"]) -> "Figure":
    """How far each implementation is from the reference, quantity by quantity, beside how far rounding may put it.

    Args:
        comparisons: a panel for each, by its title.

    >>> from jaxconv.compare import compare
    >>> import jax.numpy as jnp
    >>> figure = errors({"sine": compare(jnp.sin, lambda x: jnp.cos(x - jnp.pi / 2), jnp.ones(3))})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['value', 'd x']
    """
    from matplotlib.figure import Figure

    rows = {title: list(dict.fromkeys(row.quantity for row in c.rows)) for title, c in comparisons.items()}
    heights = [len(quantities) for quantities in rows.values()]
    figure = Figure(figsize=(9, 0.36 * sum(heights) + 0.9 * len(rows)), dpi=120, layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    names = list(dict.fromkeys(row.implementation for c in comparisons.values() for row in c.rows))
    exact = 1e-17  # where a difference of nothing is drawn, on a scale without a zero
    for axes, (title, found) in zip(panels, comparisons.items(), strict=True):
        for row in found.rows:
            y, k = rows[title].index(row.quantity), names.index(row.implementation)
            allowed = row.tolerance / row.largest if row.largest else np.nan
            axes.barh(y, allowed, left=exact, height=0.8, color="0.93", zorder=0)
            place = y + 0.6 * ((k + 0.5) / len(names) - 0.5)
            label = row.implementation if y == 0 else None
            axes.plot(max(row.relative, exact), place, "o", ms=4.5, color=f"C{k}", label=label)
        axes.set(xscale="log", xlim=(exact / 2, None), yticks=range(len(rows[title])), yticklabels=rows[title])
        axes.set_title(f"{title}: {found.dtype}, against {found.reference}", loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.4)
    panels[0].legend(loc="upper right", fontsize=8, ncols=2)
    panels[-1].set_xlabel(
        "largest error, as a share of the largest entry (grey: what rounding allows; at the edge: none)"
    )
    return figure


def ratios(seconds: Mapping[str, Mapping[str, float]], *, title: str = "") -> "Figure":
    """How many times longer than the fastest each takes, case by case.

    Args:
        seconds: for each case, the seconds of each contender; one that is missing was not measured.
        title: above all.

    >>> figure = ratios({"3×3": {"lax": 0.2, "explicit": 0.1}})
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
                place = y + 0.85 * ((k + 0.5) / len(names) - 0.5)
                label = name if y == 0 else None
                axes.barh(place, row[name] / fastest, height=0.8 / len(names), color=f"C{k}", label=label)
    axes.axvline(3, color="0.4", lw=0.8, ls="--")
    axes.set(xscale="log", yticks=range(len(seconds)), yticklabels=list(seconds), title=title)
    axes.set_xlabel("time, as a multiple of the fastest (dashed: 3)")
    axes.xaxis.set_major_formatter("{x:g}")
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
    """How long a step takes, a panel for each case: bars as multiples of a baseline, with the milliseconds beside them.

    Args:
        milliseconds: for each case, those of each contender, which are drawn in this order.
        baseline: for each case, the milliseconds that the others are multiples of; a dashed line is there.
        title: above all.
        against: whose the baseline is.
        highlight: contenders whose names begin so are drawn in a colour of their own.

    >>> figure = step_times({"lenet5": {"jaxconv step": 6.0, "torch": 4.0}}, {"lenet5": 4.0})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches], figure.axes[0].texts[0].get_text()
    ([1.5, 1.0], '6.00 ms, 1.50 ×')
    """
    from matplotlib.figure import Figure

    columns = 1 if len(milliseconds) == 1 else 2
    most = max(map(len, milliseconds.values()))
    lines = -(-len(milliseconds) // columns)
    figure = Figure(figsize=(5.2 * columns, lines * (0.27 * most + 0.55) + 0.9), dpi=120, layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, squeeze=False).flat)
    longest = max(max(row.values()) / baseline[case] for case, row in milliseconds.items())
    for axes, (case, row) in zip(panels, milliseconds.items(), strict=False):
        for y, (name, ms) in enumerate(row.items()):
            multiple = ms / baseline[case]
            ours = name.startswith(highlight)
            # Blue and grey differ in lightness too, so that they do in print and to every eye.
            axes.barh(y, multiple, height=0.75, color="#0072b2" if ours else "0.72")
            said = f"{ms:.{2 if ms < 10 else 1 if ms < 100 else 0}f} ms, {multiple:.2f} ×"
            text = axes.text(multiple + 0.01 * longest, y, said, va="center", fontsize=8)
            text.set(weight="bold" if ours else "normal", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axes.axvline(1, color="0.25", lw=0.9, ls="--", zorder=2)
        axes.set_yticks(range(len(row)), list(row), fontsize=9)
        axes.set_title(case, loc="left", fontsize=10)
        axes.set_ylim(most - 0.4, -0.6)
        axes.set_xlim(0, 1.3 * longest)  # room for the longest bar's text
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=True)
    for axes in panels[len(milliseconds) :]:
        axes.set_visible(False)
    figure.suptitle(title)
    figure.supxlabel(f"time, as a multiple of {against} (dashed)", fontsize=9)
    return figure
