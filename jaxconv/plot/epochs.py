"""Several networks' way to where they end."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxconv.errors import InputError
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


def against_epochs(
    histories: Mapping[str, Sequence[History]],
    *,
    kept: Mapping[str, Sequence[int]] | None = None,
    training: bool = True,
    title: str = "",
) -> "Figure":
    """The share of images that each network gets wrong, epoch by epoch: a colour a network, a line a training.

    Args:
        histories: for each network the records of :func:`jaxconv.train.fit`, of each seed.
        kept: for each network and seed the epoch whose parameters were kept; it is marked.
        training: draw the error on the training images too, thin and dashed: measured while the parameters change,
            with dropout and augmentation, so it may be above that of validation.
        title: above all.

    Raises:
        InputError: there is no network.

    Lecture row 004-24.

    >>> history = [{"epoch": n, "accuracy": 0.5, "val_accuracy": accuracy} for n, accuracy in ((1, 0.75), (2, 0.875))]
    >>> figure = against_epochs({"cnn": [history]}, kept={"cnn": [2]})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xlabel()
    ([0.25, 0.125], 'epoch')
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if not histories:
        raise InputError("against_epochs: there is no network to show")
    figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    handles, lowest = [], 1.0
    for k, (name, seeds) in enumerate(histories.items()):
        color = f"C{k % 10}"
        for i, history in enumerate(seeds):
            epochs = [record["epoch"] for record in history]
            error = [1 - record["val_accuracy"] for record in history]
            axes.plot(epochs, error, color=color, lw=1.6)
            lowest = min([lowest, *filter(None, error)])
            if training:
                own = [1 - record["accuracy"] or math.nan for record in history]  # no error has no place on the scale
                axes.plot(epochs, own, color=color, lw=0.8, ls="--", alpha=0.7)
            if kept:
                best = kept[name][i]
                axes.plot(best, error[epochs.index(best)], "o", ms=6, mfc="white", mec=color, mew=1.6)
        handles.append(Line2D([], [], color=color, lw=2, label=literal(name)))
    if training:
        handles.append(Line2D([], [], color="0.3", lw=1.6, label="validation"))
        handles.append(Line2D([], [], color="0.3", lw=0.8, ls="--", label="training"))
    if kept:
        handles.append(Line2D([], [], color="0.3", ls="", marker="o", ms=6, mfc="white", mew=1.6, label="kept"))
    axes.set(xlabel="epoch", ylabel="error" if training else "validation error", yscale="log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest / 5))  # what is learned by heart is not the subject
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda error, place: f"{100 * error:g} %")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(handles=handles, fontsize=8, ncols=2)
    figure.suptitle(literal(title), fontsize=10)
    return figure
