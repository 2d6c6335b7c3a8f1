"""How a training went, and what came of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot.figures import literal
from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(history: Sequence[dict[str, Any]], *, best_epoch: int, title: str = "") -> "Figure":
    """Loss and metrics, such as accuracy, by epoch, of training and validation, with the best epoch marked.

    Training is measured while the parameters change and with dropout, so in early epochs it may look worse than
    validation.

    Args:
        history: the records of :func:`jaxconv.train.fit`.
        best_epoch: the one whose parameters were kept.
        title: above both.

    >>> record = {"epoch": 1, "loss": 0.5, "accuracy": 0.8, "val_loss": 0.4, "val_accuracy": 0.9}
    >>> [axes.get_ylabel() for axes in training_curves([record], best_epoch=1).axes]
    ['loss', 'accuracy']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    epochs = [record["epoch"] for record in history]
    measures = ["loss", *(name for name in history[0] if f"val_{name}" in history[0] and name != "loss")]
    for axes, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
        validation = [record[f"val_{measure}"] for record in history]
        best = validation[best_epoch - 1]
        axes.plot(epochs, [record[measure] for record in history], "o-", ms=4, color="tab:blue", label="training")
        axes.plot(epochs, validation, "o-", ms=4, color="tab:orange", label="validation")
        axes.plot(best_epoch, best, "o", ms=10, mfc="none", color="tab:orange", label=f"kept: {best:.4f}")
        axes.set(xlabel="epoch", ylabel=measure, yscale="log" if measure == "loss" else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(literal(title))
    return figure


def misclassified(
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

    >>> figure = misclassified(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), np.array([[.9, .1], [.8, .2]]), "ab")
    >>> [axes.get_title() for axes in figure.axes if axes.images]
    ['b\\n→ a 80%']
    """
    from matplotlib.figure import Figure

    names = [literal(printable(name)) for name in classes]
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
        axes.set_title(f"{names[labels[i]]}\n→ {names[said[i]]} {sure[i]:.0%}", fontsize=9)
    if len(wrong):
        which = f", the {most} surest" if len(wrong) > most else ""
        figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong{which}: true class → what the network said")
    else:
        figure.suptitle(f"no mistake on {len(labels):,} images")
    return figure


@named_errors
def confusion_matrix(counts: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """How often each class was taken for each: a row a true class, a column what was said, the diagonal what is right.

    A cell's colour is its share of the row, so that rare classes show as well as common ones. The scale is bent, so
    that one mistake in a hundred is seen beside the diagonal. Up to 20 classes, the counts stand in the cells.

    Args:
        counts: ``(classes, classes)``, from :func:`jaxconv.train.confusion_matrix`.
        classes: their names.
        title: above all, over how many were right.

    Raises:
        InputError: counts that have not a row and a column for every name.

    >>> figure = confusion_matrix(np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['3', '1', '2']
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts, count = np.asarray(counts), len(classes)
    if counts.shape != (count, count):
        raise InputError(f"counts {counts.shape} should be ({count}, {count}), for {count} names of classes")
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
    names = [literal(printable(classes[i])) for i in named]
    axes.set_yticks(named, names, fontsize=size)
    axes.set_xticks(named, names, fontsize=size, rotation=90 * turned)
    axes.tick_params(length=0)
    axes.set(xlabel="said", ylabel="true class")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class")
    axes.set_title(f"{literal(title)}\n{np.trace(counts):,} of {counts.sum():,} right".lstrip("\n"))
    return figure
