"""Figures of the experiments: error by epoch, accuracy bars and curves, and gradient norms by layer."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot.diagnostics import norms_line
from jaxconv.plot.figures import literal, literals

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
    """Plot the error of each network by epoch: one color per network, one line per seed.

    Args:
        histories: records of :func:`jaxconv.train.fit` by network, one history per seed.
        kept: epoch of the retained parameters by network, one per seed; drawn as a circle.
        training: also draw the training error, thin and dashed. It is measured during the updates, with dropout and
            augmentation, so it may exceed the validation error.
        title: figure title.

    Raises:
        InputError: if ``histories`` is empty.

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
    for index, (name, seeds) in enumerate(histories.items()):
        color = f"C{index % 10}"
        for seed, history in enumerate(seeds):
            epochs = [record["epoch"] for record in history]
            errors = [1 - record["val_accuracy"] for record in history]
            axes.plot(epochs, errors, color=color, lw=1.6)
            lowest = min([lowest, *filter(None, errors)])
            if training:
                # NaN leaves a gap: a log scale cannot show an error of 0.
                train_errors = [1 - record["accuracy"] or math.nan for record in history]
                axes.plot(epochs, train_errors, color=color, lw=0.8, ls="--", alpha=0.7)
            if kept:
                best_epoch = kept[name][seed]
                axes.plot(best_epoch, errors[epochs.index(best_epoch)], "o", ms=6, mfc="white", mec=color, mew=1.6)
        handles.append(Line2D([], [], color=color, lw=2, label=literal(name)))
    if training:
        handles.append(Line2D([], [], color="0.3", lw=1.6, label="validation"))
        handles.append(Line2D([], [], color="0.3", lw=0.8, ls="--", label="training"))
    if kept:
        handles.append(Line2D([], [], color="0.3", ls="", marker="o", ms=6, mfc="white", mew=1.6, label="kept"))
    axes.set(xlabel="epoch", ylabel="error" if training else "validation error", yscale="log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest / 5))  # cut off training errors far below the validation error
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda error, _: f"{100 * error:g} %")
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
    """Plot the accuracy of networks by task: one panel per task, one bar per network, one dot per seed.

    A bar shows the mean, which is also printed beside it; bars are colored by their index in the panel.

    Args:
        results: accuracies by task and network, one per seed, from 0 to 1.
        chance: accuracy of guessing by task, drawn as a dashed line.
        measure: label of the accuracy axis.
        title: figure title.

    Raises:
        InputError: if ``results`` is empty, or a network has no values.

    >>> figure = grouped_bars({"text": {"dense": [0.5, 0.75], "conv": [1.0]}}, chance={"text": 0.5})
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches], [text.get_text() for text in figure.axes[0].texts]
    ([0.625, 1.0], ['62.5 %', '100.0 %'])
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    if not results or not all(len(values) for networks in results.values() for values in networks.values()):
        raise InputError("results must have at least one task, and at least one value per network")
    num_columns = min(2, len(results))
    num_rows = -(-len(results) // num_columns)
    max_networks = max(map(len, results.values()))
    figure = Figure(
        figsize=(4.6 * num_columns, num_rows * (0.3 * max_networks + 0.55) + 0.6), dpi=120, layout="constrained"
    )
    panels = list(figure.subplots(num_rows, num_columns, sharex=True, squeeze=False).flat)
    for axes, (task, networks) in zip(panels, results.items(), strict=False):
        for row, values in enumerate(networks.values()):
            mean = float(np.mean(values))
            axes.barh(row, mean, height=0.7, color=f"C{row}", alpha=0.75)
            axes.plot(values, [row] * len(values), "o", ms=3, color="0.15")
            text = axes.text(1.03, row, f"{100 * mean:.1f} %", va="center", fontsize=8)
            text.set_clip_on(False)
        if chance and task in chance:
            axes.axvline(chance[task], color="0.25", lw=0.9, ls="--")
        axes.set_yticks(range(len(networks)), literals(networks), fontsize=8)
        axes.set_ylim(len(networks) - 0.5, -0.5)
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
    """Plot gradient norms before training, and training losses: one color per network, one line per seed.

    Args:
        norms: results of :func:`jaxconv.explain.gradient_norms` by network, one per seed. Norms that are 0 or not
            finite are left out of the log scale.
        losses: training losses by network, one sequence over epochs per seed.
        title: figure title.

    Raises:
        InputError: if ``norms`` is empty, has a network without seeds, or has other networks than ``losses``.

    Lecture row 003-22.

    >>> norms = {"plain": [{"conv1": 1e-6, "conv2": 1e-3}], "residual": [{"conv1": 0.1, "conv2": 0.2}]}
    >>> figure = gradients_and_losses(norms, {"plain": [[2.3, 2.0]], "residual": [[2.3, 1.0]]})
    >>> [axes.lines[1].get_ydata().tolist() for axes in figure.axes]
    [[0.1, 0.2], [2.3, 1.0]]
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not norms or set(norms) != set(losses) or not all(norms.values()):
        raise InputError("norms and losses must have the same networks, at least one, each with a seed")
    figure = Figure(figsize=(8.6, 3.9), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for index, (name, seeds) in enumerate(norms.items()):
        for layers in seeds:
            line = norms_line(left, layers, color=f"C{index}", lw=1.3, label=literal(name))
        for loss in losses[name]:
            right.plot(np.arange(1, len(loss) + 1), loss, "o-", ms=3, lw=1.3, color=f"C{index}")
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
    """Plot ensemble accuracy against the number of members: mean and range over all subsets of each size.

    Args:
        accuracy: accuracies by ensemble size, one per subset of that size; size 1 holds the single networks.
        measure: label of the accuracy axis.
        title: figure title.

    Raises:
        InputError: if ``accuracy[1]`` is missing or empty.

    Lecture row 004-16.

    >>> figure = accuracy_vs_ensemble_size({1: [0.8, 0.9], 2: [0.95]})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_xlabel()
    ([0.85, 0.95], 'networks together')
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not accuracy.get(1):
        raise InputError("accuracy must have the key 1, the accuracies of the single networks")
    sizes = sorted(accuracy)
    means, minima, maxima = ([float(reduce(accuracy[size])) for size in sizes] for reduce in (np.mean, np.min, np.max))
    figure = Figure(figsize=(5.6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, means, "o-", ms=5, color="tab:blue", label="together, mean of all choices")
    axes.fill_between(sizes, minima, maxima, color="tab:blue", alpha=0.15, lw=0, label="from the worst to the best")
    baseline_label = f"one alone, mean: {means[0]:.4f}"
    axes.axhline(means[0], color="tab:orange", ls="--", label=baseline_label)
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
    """Plot accuracy against the number of training samples: mean and standard deviation over seeds.

    Args:
        results: accuracies by network and number of samples, one per seed.
        measure: label of the accuracy axis.
        title: figure title.

    Raises:
        InputError: if ``results`` is empty.

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
    for name, by_count in results.items():
        samples = sorted(by_count)
        means = [float(np.mean(by_count[count])) for count in samples]
        deviations = [float(np.std(by_count[count], ddof=1)) if len(by_count[count]) > 1 else 0.0 for count in samples]
        axes.errorbar(samples, means, deviations, fmt="o-", ms=4, capsize=3, label=literal(name))
    axes.set(xscale="log", xlabel="training samples", ylabel=literal(measure))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure
