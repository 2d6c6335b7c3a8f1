"""Figures of training and its result: training curves, misclassified images, confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot.figures import literal
from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(history: Sequence[dict[str, Any]], *, best_epoch: int, title: str = "") -> "Figure":
    """Plot loss and metrics such as accuracy by epoch, for training and validation, with the best epoch marked.

    Training values are measured while the parameters change and with dropout, so in early epochs they may be worse than
    the validation values.

    Args:
        history: records of :func:`jaxconv.train.fit`.
        best_epoch: epoch whose parameters were kept.
        title: figure title.

    >>> record = {"epoch": 1, "loss": 0.5, "accuracy": 0.8, "val_loss": 0.4, "val_accuracy": 0.9}
    >>> [axes.get_ylabel() for axes in training_curves([record], best_epoch=1).axes]
    ['loss', 'accuracy']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    epochs = [record["epoch"] for record in history]
    metrics = ["loss", *(name for name in history[0] if f"val_{name}" in history[0] and name != "loss")]
    for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        validation = [record[f"val_{metric}"] for record in history]
        best = validation[best_epoch - 1]
        axes.plot(epochs, [record[metric] for record in history], "o-", ms=4, color="tab:blue", label="training")
        axes.plot(epochs, validation, "o-", ms=4, color="tab:orange", label="validation")
        axes.plot(best_epoch, best, "o", ms=10, mfc="none", color="tab:orange", label=f"best: {best:.4f}")
        axes.set(xlabel="epoch", ylabel=metric, yscale="log" if metric == "loss" else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(literal(title))
    return figure


def misclassified(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], *, most: int = 32
) -> "Figure":
    """Plot the misclassified images, most confident first, titled with the true and the predicted class.

    Args:
        images: ``(N, H, W, C)`` uint8. Three channels are a color; of more, the first three are shown, and of two,
            the first, in gray.
        labels: true classes ``(N,)``.
        probabilities: ``(N, classes)``.
        classes: class names.
        most: maximum number of images.

    >>> figure = misclassified(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), np.array([[.9, .1], [.8, .2]]), "ab")
    >>> [axes.get_title() for axes in figure.axes if axes.images]
    ['b\\n→ a 80%']
    """
    from matplotlib.figure import Figure

    names = [literal(printable(name)) for name in classes]
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    displayed = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    columns = min(8, max(4, len(displayed)))
    rows = max(1, -(-len(displayed) // columns))
    figure = Figure(figsize=(1.4 * columns, 1.8 * rows + 0.4), dpi=110, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, displayed, strict=False):
        pixels = images[i, ..., :3] if images.shape[-1] >= 3 else images[i, ..., 0]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{names[labels[i]]}\n→ {names[predicted[i]]} {confidence[i]:.0%}", fontsize=9)
    if len(wrong):
        selection = f", {most} most confident" if len(wrong) > most else ""
        figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong{selection}: true class → predicted class")
    else:
        figure.suptitle(f"no errors on {len(labels):,} images")
    return figure


@named_errors
def confusion_matrix(counts: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """Plot a confusion matrix: one row per true class, one column per predicted class.

    The color of a cell is its fraction of the row, so that rare classes are as visible as common ones. The color scale
    is nonlinear, so that 1 % is visible beside the diagonal. Up to 20 classes, the cells contain the counts.

    Args:
        counts: ``(classes, classes)``, from :func:`jaxconv.train.confusion_matrix`.
        classes: class names.
        title: figure title, printed above the number of correct predictions.

    Raises:
        InputError: if ``counts`` does not have one row and one column per class name.

    >>> figure = confusion_matrix(np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['3', '1', '2']
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts, num_classes = np.asarray(counts), len(classes)
    if counts.shape != (num_classes, num_classes):
        raise InputError(f"counts must be ({num_classes}, {num_classes}) for {num_classes} classes, got {counts.shape}")
    annotate, longest = num_classes <= 20, max(map(len, classes))
    if annotate:
        side = min(max(3.6, num_classes * min(max(0.56, 0.085 * longest), 0.85)), 11)
    else:
        side = min(0.14 * num_classes + 3, 17)
    cell = 72 * side / num_classes  # in points, like font sizes; a letter is 0.6 times as wide as it is high
    size = 9 if annotate else max(4, min(8, 0.75 * cell))
    width = longest * 0.6 * size
    rotated = width > 0.95 * cell
    figsize = side + width / 72 + 1.3, side + rotated * width / 72 + 0.8
    figure = Figure(figsize=figsize, dpi=120, layout="constrained")
    axes = figure.subplots()
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fraction, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    if annotate:
        digits = min(8, 0.9 * cell / (0.6 * len(f"{counts.max():,}")))
        for (i, j), n in np.ndenumerate(counts):
            if n:
                color = "white" if fraction[i, j] > 0.3 else "0.15"
                axes.text(j, i, f"{n:,}", ha="center", va="center", fontsize=digits, color=color)
    ticks = range(0, num_classes, max(1, round(5 / cell)))  # skip names where the rows are too narrow for all
    names = [literal(printable(classes[i])) for i in ticks]
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set_xticks(ticks, names, fontsize=size, rotation=90 * rotated)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.set_label("fraction of the true class")
    axes.set_title(f"{literal(title)}\n{np.trace(counts):,} of {counts.sum():,} correct".lstrip("\n"))
    return figure
