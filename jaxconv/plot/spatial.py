"""Figures of spatial behavior: receptive fields, coverage, and accuracy under shift and corruption."""

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

Box = tuple[tuple[int, int], ...]  # (start, stop) of the rows, and of the columns


@named_errors
def receptive_field(image: Any, boxes: Mapping[str, Box], *, title: str = "") -> "Figure":
    """Plot an image with the receptive field of one output of each layer as a frame.

    Args:
        image: ``(H, W, C)``, uint8 or floats in [0, 1].
        boxes: ``((top, bottom), (left, right))`` in pixels by layer, as ``explain.receptive_field_of(…).bounds(place)``
            returns them. The part outside the image is padding, and is drawn too.
        title: figure title.

    Raises:
        InputError: if there is no box, or one is not two pairs.

    Lecture row 001-17.

    >>> figure = receptive_field(np.zeros((8, 8, 1)), {"conv1": ((2, 5), (2, 5)), "conv2": ((1, 6), (1, 6))})
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['conv1: 3×3', 'conv2: 5×5']
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    pixels = to_rgb(image)
    if not boxes or any(np.shape(box) != (2, 2) for box in boxes.values()):
        raise InputError("give at least one layer's box, ((top, bottom), (left, right))")
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(5.6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(pixels, interpolation="nearest")
    # In reverse order, so that the small frames of early layers are drawn over the large ones.
    for i, (name, ((top, bottom), (left, right))) in reversed(list(enumerate(boxes.items()))):
        corner, sides = (left - 0.5, top - 0.5), (right - left, bottom - top)
        label = f"{name}: {bottom - top}×{right - left}"
        axes.add_patch(Rectangle(corner, *sides, fill=False, ec=f"C{i % 10}", lw=2, label=literal(label)))
    (tops, bottoms), (lefts, rights) = np.array(list(boxes.values())).transpose(1, 2, 0)
    axes.set_xlim(min(0, lefts.min()) - 1, max(width, rights.max()))
    axes.set_ylim(max(height, bottoms.max()), min(0, tops.min()) - 1)
    axes.set_facecolor("0.92")  # padding
    axes.set(xticks=[], yticks=[])
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def coverage(counts: np.ndarray, *, title: str = "") -> "Figure":
    """Plot the number of outputs that depend on each pixel, as colors and, up to 16 pixels a side, as numbers.

    Args:
        counts: ``(H, W)``, from ``explain.coverage_map`` or ``shapes.coverage``.
        title: figure title.

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
    image = axes.imshow(counts, cmap="viridis", vmin=0)
    if max(counts.shape) <= 16:
        for (i, j), count in np.ndenumerate(counts):
            dark = count < 0.6 * counts.max()
            axes.text(j, i, f"{count}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label="outputs per pixel", shrink=0.85, ticks=MaxNLocator(6, integer=True))
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def accuracy_vs_shift(results: Mapping[str, Sequence[ShiftResult]], *, title: str = "") -> "Figure":
    """Plot accuracy, consistency of the predicted class, and feature distance against the shift of the images.

    Args:
        results: results of ``explain.translation_test`` by network.
        title: figure title.

    Lecture rows 001-04, 003-16.

    >>> rows = [ShiftResult(-1, 0.5, 0.6, 0.4), ShiftResult(0, 1.0, 1.0, 0.0)]
    >>> figure = accuracy_vs_shift({"cnn": rows})
    >>> figure.axes[0].lines[0].get_ydata().tolist(), [axes.get_title() for axes in figure.axes]
    ([0.5, 1.0], ['accuracy', 'same class as unshifted', 'feature distance'])
    """
    from matplotlib.figure import Figure

    if not results:
        raise InputError("there is no network to show")
    figure = Figure(figsize=(10.5, 3.5), dpi=120, layout="constrained")
    panels = {
        "accuracy": "accuracy",
        "consistency": "same class as unshifted",
        "feature_distance": "feature distance",
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
    """Plot accuracy against the severity of each corruption, one panel per corruption and one line per network.

    Args:
        results: results of ``explain.corruption_accuracy`` by network, with equal corruptions.
        image: ``(H, W, C)``; shown above each panel at the severities of that panel.
        title: figure title.

    Raises:
        InputError: if there is no network or no corruption, or the networks have different corruptions.

    Lecture row 004-14.

    >>> figure = accuracy_vs_severity({"cnn": {"blur": [(0, 0.9), (1, 0.8)]}, "mlp": {"blur": [(0, 0.9), (1, 0.4)]}})
    >>> [line.get_label() for line in figure.axes[1].lines[:2]], figure.axes[0].get_title()
    (['cnn', 'mlp'], 'blur')
    """
    from matplotlib.figure import Figure

    if not results or not all(results.values()) or len({frozenset(curves) for curves in results.values()}) > 1:
        raise InputError("give at least one network and one corruption, and the same ones for all networks")
    names = list(next(iter(results.values())))
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 2.9 * rows + 0.6), dpi=120, layout="constrained")
    cells = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 5] * rows)
    for i in range(rows * columns):
        above, axes = cells[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        above.axis("off")
        if i >= len(names):
            axes.set_visible(False)
            continue
        name, corruption = names[i], CORRUPTIONS.get(names[i])
        for k, (network, curves) in enumerate(results.items()):
            axes.plot(*zip(*sorted(curves[name]), strict=True), "o-", ms=3, color=f"C{k}", label=literal(network))
        above.set_title(literal(name.replace("_", " ")), fontsize=10)
        axes.set_xlabel(corruption.unit if corruption else "severity", fontsize=8)
        axes.set_ylim(0, 1.03)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if corruption is not None:
            axes.axvline(corruption.identity, color="0.5", lw=0.8, ls="--", zorder=0)
        if image is not None and corruption is not None:
            severities = sorted({severity for curves in results.values() for severity, _ in curves[name]})
            above.imshow(_corrupted_strip(np.asarray(image), name, severities), interpolation="nearest")
        if i % columns == 0:
            axes.set_ylabel("accuracy", fontsize=8)
    figure.legend(
        *cells[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results), frameon=False
    )
    figure.suptitle(literal(title), fontsize=11)
    return figure


def _corrupted_strip(image: np.ndarray, name: str, severities: Sequence[float]) -> np.ndarray:
    """Return the image at each severity in one row, separated by white gaps."""
    images = [to_rgb(corrupted) for corrupted in np.asarray(corrupt_at_severities(image, name, severities))]
    gap = np.full((len(image), max(1, len(image) // 14), 3), 255, np.uint8)
    return np.concatenate([part for corrupted in images for part in (gap, corrupted)][1:], axis=1)
