"""Figures of the experiments: curves over epochs, samples and seeds, bars, and gradients by depth."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxconv.errors import InputError, named_errors
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from typing import TYPE_CHECKING

import numpy as np

from jaxconv.plot.figures import literals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from typing import TYPE_CHECKING

from jaxconv.plot.diagnostics import norms_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


@named_errors
def metric_vs_epoch(
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
    >>> figure = metric_vs_epoch({"cnn": [history]}, kept={"cnn": [2]})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xlabel()
    ([0.25, 0.125], 'epoch')
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if not histories:
        raise InputError("there is no network to show")
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


@named_errors
def grouped_bars(
    results: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    chance: Mapping[str, float] | None = None,
    measure: str = "test accuracy",
    title: str = "",
) -> "Figure":
    """Accuracy of each network on each task: a panel a task, a bar a network, a dot a training.

    A bar is as long as the mean, which stands beside it; its colour is the network's place in its panel.

    Args:
        results: for each task and network the accuracy from each seed, from 0 to 1.
        chance: of some tasks, what guessing gives; a dashed line is there.
        measure: what the numbers are.
        title: above all.

    Raises:
        InputError: there is no task, or a network without a number.

    >>> figure = grouped_bars({"text": {"dense": [0.5, 0.75], "conv": [1.0]}}, chance={"text": 0.5})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches], [text.get_text() for text in figure.axes[0].texts]
    ([0.625, 1.0], ['62.5 %', '100.0 %'])
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    if not results or not all(len(values) for found in results.values() for values in found.values()):
        raise InputError("there is nothing to show: give every network at least one number")
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


@named_errors
def gradients_and_losses(
    norms: Mapping[str, Sequence[Mapping[str, Any]]],
    losses: Mapping[str, Sequence[Sequence[float]]],
    *,
    title: str = "",
) -> "Figure":
    """The gradient of each layer before training, and the loss while training: a colour a network, a line a seed.

    Args:
        norms: for each network and seed what :func:`jaxconv.explain.gradient_norms` returns. What is 0 or not finite
            has no place on the scale, and is left out.
        losses: for each of these networks and each seed the training loss, epoch by epoch.
        title: above both.

    Raises:
        InputError: no network, or not the same ones in both.

    Lecture row 003-22.

    >>> norms = {"plain": [{"conv1": 1e-6, "conv2": 1e-3}], "residual": [{"conv1": 0.1, "conv2": 0.2}]}
    >>> figure = gradients_and_losses(norms, {"plain": [[2.3, 2.0]], "residual": [[2.3, 1.0]]})
    >>> [axes.lines[1].get_ydata().tolist() for axes in figure.axes]
    [[0.1, 0.2], [2.3, 1.0]]
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not norms or set(norms) != set(losses) or not all(norms.values()):
        raise InputError("the same networks are wanted in both, at least one, each with a seed")
    figure = Figure(figsize=(8.6, 3.9), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for k, (name, seeds) in enumerate(norms.items()):
        for layers in seeds:
            line = norms_line(left, layers, color=f"C{k}", lw=1.3, label=literal(name))
        for loss in losses[name]:
            right.plot(np.arange(1, len(loss) + 1), loss, "o-", ms=3, lw=1.3, color=f"C{k}")
        handles.append(line)
    left.set(yscale="log", xlabel="layer, from the image to the logits", ylabel="‖d loss / d kernel‖ before training")
    right.set(xlabel="epoch", ylabel="training loss")
    right.set_ylim(0, 1.05 * max(max(loss) for seeds in losses.values() for loss in seeds))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def accuracy_vs_ensemble_size(
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

    >>> figure = accuracy_vs_ensemble_size({1: [0.8, 0.9], 2: [0.95]})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xlabel()
    ([0.85, 0.95], 'networks together')
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not accuracy.get(1):
        raise InputError("the accuracy of each network alone, under 1, is wanted")
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


@named_errors
def accuracy_vs_num_samples(
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

    >>> figure = accuracy_vs_num_samples({"cnn": {100: [0.8, 0.9], 1000: [0.97, 0.98]}})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xscale()
    ([0.85, 0.975], 'log')
    """
    from matplotlib.figure import Figure

    if not results:
        raise InputError("there is no network to show")
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
