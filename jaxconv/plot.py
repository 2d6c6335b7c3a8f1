"""The only room that draws. Each function saves one picture and says nothing; it touches no global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def save_curves(path: Path, history: Sequence[dict[str, Any]], *, best_epoch: int, title: str) -> None:
    """Loss and accuracy by epoch, of training and validation, with the best epoch marked.

    Training is measured while the parameters change and with dropout, so its curve may lie below validation's.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [record["epoch"] for record in history]
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [record[measure] for record in history], "o-", ms=4, color="tab:blue", label="training")
        best = history[best_epoch - 1][f"val_{measure}"]
        validation = [record[f"val_{measure}"] for record in history]
        axes.plot(epochs, validation, "o-", ms=4, color="tab:orange", label="validation")
        axes.plot(best_epoch, best, "o", ms=10, mfc="none", color="tab:orange", label=f"best: {best:.4f}")
        axes.set(xlabel="epoch", ylabel=measure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def save_mistakes(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    most: int = 32,
) -> None:
    """The images that were classified wrongly, the surest mistakes first: the true class, and what was said.

    Args:
        path: of the picture.
        images: ``(N, H, W, C)`` uint8, with one channel or three.
        labels: ``(N,)`` true class numbers.
        probabilities: ``(N, classes)``.
        classes: their names.
        most: how many to show.
    """
    from matplotlib.figure import Figure

    said = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    wrong = np.flatnonzero(said != labels)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    columns = 8
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.5 * columns, 1.85 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, shown, strict=False):
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{classes[labels[i]]}\n→ {classes[said[i]]} {sure[i]:.0%}", fontsize=9)
    if not len(wrong):
        title = f"no mistake on {len(labels):,} images"
    else:
        title = f"{len(wrong):,} of {len(labels):,} wrong" + (f", the {most} surest" if len(wrong) > most else "")
        title += ": true class → what the network said"
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
