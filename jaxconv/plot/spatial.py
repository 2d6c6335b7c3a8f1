"""Where a network looks, and what it makes of images that are moved or distorted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain import CORRUPTIONS, ShiftResult
from jaxconv.explain.corruptions import corrupt_at_severities
from jaxconv.plot.figures import literal
from jaxconv.plot.rgb import to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Box = tuple[tuple[int, int], ...]  # (from, up to) of the rows, and of the columns


@named_errors
def receptive_field(image: Any, boxes: Mapping[str, Box], *, title: str = "") -> "Figure":
    """An image, with a frame around the pixels that one output of each layer sees.

    Args:
        image: ``(H, W, C)``, bytes or floats from 0 to 1.
        boxes: for each layer ``((top, below), (left, beyond))`` in pixels, as
            ``explain.receptive_field_of(…).bounds(place)`` gives it. What is outside the image is drawn too: it is
            padding.
        title: above all.

    Raises:
        InputError: no box, or one that is not of rows and columns.

    Lecture row 001-17.

    >>> figure = receptive_field(np.zeros((8, 8, 1)), {"conv1": ((2, 5), (2, 5)), "conv2": ((1, 6), (1, 6))})
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['conv1: 3×3', 'conv2: 5×5']
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shown = to_rgb(image)
    if not boxes or any(np.shape(box) != (2, 2) for box in boxes.values()):
        raise InputError("give at least one layer's box, ((top, below), (left, beyond))")
    height, width = shown.shape[:2]
    figure = Figure(figsize=(5.6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shown, interpolation="nearest")
    # The last first, so that small frames lie on large ones.
    for i, (name, ((top, below), (left, beyond))) in reversed(list(enumerate(boxes.items()))):
        corner, sides = (left - 0.5, top - 0.5), (beyond - left, below - top)
        label = f"{name}: {below - top}×{beyond - left}"
        axes.add_patch(Rectangle(corner, *sides, fill=False, ec=f"C{i % 10}", lw=2, label=literal(label)))
    (tops, belows), (lefts, beyonds) = np.array(list(boxes.values())).transpose(1, 2, 0)
    axes.set_xlim(min(0, lefts.min()) - 1, max(width, beyonds.max()))
    axes.set_ylim(max(height, belows.max()), min(0, tops.min()) - 1)
    axes.set_facecolor("0.92")  # padding
    axes.set(xticks=[], yticks=[])
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def coverage(counts: np.ndarray, *, title: str = "") -> "Figure":
    """How many outputs see each pixel, as colours; up to 16 pixels a side also as numbers.

    Args:
        counts: ``(H, W)``, from ``explain.coverage_map`` or ``shapes.coverage``.
        title: above all.

    Lecture rows 001-23, 002-18.

    >>> from jaxconv.shapes import Window, coverage as count
    >>> figure = coverage(count(Window(3), (5, 5)))
    >>> [text.get_text() for text in figure.axes[0].texts[:5]]
    ['1', '2', '3', '2', '1']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    counts = np.asarray(counts)
    if counts.ndim != 2:
        raise InputError(f"counts {counts.shape} should be (H, W)")
    figure = Figure(figsize=(5, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(counts, cmap="viridis", vmin=0)
    if max(counts.shape) <= 16:
        for (i, j), count in np.ndenumerate(counts):
            dark = count < 0.6 * counts.max()
            axes.text(j, i, f"{count}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, label="outputs that see the pixel", shrink=0.85, ticks=MaxNLocator(6, integer=True))
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def accuracy_vs_shift(results: Mapping[str, Sequence[ShiftResult]], *, title: str = "") -> "Figure":
    """Accuracy, unchanged classes and the features' distance against how far the images are moved.

    Args:
        results: for each network what ``explain.translation_test`` gives.
        title: above all.

    Lecture rows 001-04, 003-16.

    >>> rows = [ShiftResult(-1, 0.5, 0.6, 0.4), ShiftResult(0, 1.0, 1.0, 0.0)]
    >>> figure = accuracy_vs_shift({"cnn": rows})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), [axes.get_title() for axes in figure.axes]
    ([0.5, 1.0], ['accuracy', 'same class as unmoved', 'distance of the features'])
    """
    from matplotlib.figure import Figure

    if not results:
        raise InputError("there is no network to show")
    figure = Figure(figsize=(10.5, 3.5), dpi=120, layout="constrained")
    panels = {
        "accuracy": "accuracy",
        "consistency": "same class as unmoved",
        "feature_distance": "distance of the features",
    }
    for axes, (field, heading) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for i, (name, rows) in enumerate(results.items()):
            rows = sorted(rows)
            shifts, values = [r.shift for r in rows], [getattr(r, field) for r in rows]
            axes.plot(shifts, values, "o-", ms=3, color=f"C{i}", label=literal(name))
        axes.set(xlabel="shift (pixels)")
        axes.set_title(heading, fontsize=10)
        axes.set_ylim(0, None if field == "feature_distance" else 1.03)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(results), frameon=False)
    figure.suptitle(literal(title), fontsize=11)
    return figure


@named_errors
def accuracy_vs_severity(
    results: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], image: Any = None, *, title: str = ""
) -> "Figure":
    """Accuracy against the strength of each distortion, a panel for each and a line for each network.

    Args:
        results: for each network what ``explain.corruption_accuracy`` gives; all of the same distortions.
        image: ``(H, W, C)``: above each panel it is shown as it is at these strengths.
        title: above all.

    Raises:
        InputError: no network, or networks that were asked about different distortions.

    Lecture row 004-14.

    >>> figure = accuracy_vs_severity({"cnn": {"blur": [(0, 0.9), (1, 0.8)]}, "mlp": {"blur": [(0, 0.9), (1, 0.4)]}})
    >>> [line.get_label() for line in figure.axes[1].lines[:2]], figure.axes[0].get_title()
    (['cnn', 'mlp'], 'blur')
    """
    from matplotlib.figure import Figure

    if not results or not all(results.values()) or len({frozenset(found) for found in results.values()}) > 1:
        raise InputError("give at least one network and one distortion, and the same ones for all networks")
    names = list(next(iter(results.values())))
    columns = min(len(names), 5)
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 2.9 * lines + 0.6), dpi=120, layout="constrained")
    cells = figure.subplots(2 * lines, columns, squeeze=False, height_ratios=[1, 5] * lines)
    for i in range(lines * columns):
        above, axes = cells[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        above.axis("off")
        if i >= len(names):
            axes.set_visible(False)
            continue
        name, entry = names[i], CORRUPTIONS.get(names[i])
        for k, (network, found) in enumerate(results.items()):
            axes.plot(*zip(*sorted(found[name]), strict=True), "o-", ms=3, color=f"C{k}", label=literal(network))
        above.set_title(literal(name.replace("_", " ")), fontsize=10)
        axes.set_xlabel(entry.unit if entry else "strength", fontsize=8)
        axes.set_ylim(0, 1.03)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if entry is not None:
            axes.axvline(entry.identity, color="0.5", lw=0.8, ls="--", zorder=0)
        if image is not None and entry is not None:
            strengths = sorted({strength for found in results.values() for strength, _ in found[name]})
            above.imshow(_side_by_side(np.asarray(image), name, strengths), interpolation="nearest")
        if i % columns == 0:
            axes.set_ylabel("accuracy", fontsize=8)
    figure.legend(
        *cells[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results), frameon=False
    )
    figure.suptitle(literal(title), fontsize=11)
    return figure


def _side_by_side(image: np.ndarray, name: str, severities: Sequence[float]) -> np.ndarray:
    """The image at each strength, with a gap between them, as one picture."""
    seen = [to_rgb(each) for each in np.asarray(corrupt_at_severities(image, name, severities))]
    gap = np.full((len(image), max(1, len(image) // 14), 3), 255, np.uint8)
    return np.concatenate([part for each in seen for part in (gap, each)][1:], axis=1)
