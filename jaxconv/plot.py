"""The only room that draws. Each function makes one matplotlib figure and touches no global state.

In a notebook the figure shows itself after ``%matplotlib inline``; in a script, ``figure.savefig("curves.png")``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        images: ``(N, H, W, C)`` uint8, with one channel or three.
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
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{classes[labels[i]]}\n→ {classes[said[i]]} {sure[i]:.0%}", fontsize=9)
    if len(wrong):
        which = f", the {most} surest" if len(wrong) > most else ""
        figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong{which}: true class → what the network said")
    else:
        figure.suptitle(f"no mistake on {len(labels):,} images")
    return figure
