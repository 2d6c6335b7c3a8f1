"""Figures of images: grids, rows, and small arrays with their values written in the cells."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot import rgb
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxconv.plot.spatial import Box


@named_errors
def image_grid(
    pictures: Sequence[Any],
    titles: Sequence[str] = (),
    *,
    columns: int = 8,
    title: str = "",
    size: float = 1.3,
) -> "Figure":
    """Plot images in a grid, row by row.

    Args:
        pictures: images ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.rgb` returns them; None leaves a gap.
        titles: titles of the images; may be fewer than the images, or none.
        columns: maximum number of images in a row.
        title: figure title.
        size: width of one panel in inches.

    Raises:
        InputError: if there is no image.

    >>> import numpy as np
    >>> figure = image_grid([np.zeros((4, 4, 3), np.uint8)] * 3, ["a", "b", "c"], columns=2)
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'b', 'c', '']
    """
    from matplotlib.figure import Figure

    if not len(pictures):
        raise InputError("pictures must have at least one image, got none")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    # The tallest image sets the height of all panels, so that wide images leave no gaps between the rows.
    height = size * max((len(image) / len(image[0]) for image in pictures if image is not None), default=1.0)
    panel_height = height + 0.18 * max((1 + text.count("\n") for text in titles), default=0)
    figsize = size * columns, panel_height * rows + 0.35 * bool(title)
    figure = Figure(figsize=figsize, dpi=110, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, image in zip(panels, pictures, strict=False):
        if image is not None:
            axes.imshow(image, interpolation="nearest")
    for axes, text in zip(panels, titles, strict=False):
        axes.set_title(literal(text), fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def image_rows(
    named: Mapping[str, Sequence[Any]], titles: Sequence[str] = (), *, title: str = "", size: float = 0.7
) -> "Figure":
    """Plot rows of images, each row with its name to the left.

    Args:
        named: images ``(H, W, C)`` of each row by name, uint8 or floats in [0, 1]; all rows have equal length.
        titles: titles of the columns; may be fewer than the columns, or none.
        title: figure title.
        size: width and height of one panel in inches.

    Raises:
        InputError: if there is no image, or the rows differ in length.

    >>> images = np.zeros((2, 4, 4, 1))
    >>> figure = image_rows({"before": images, "after": images}, ["a"])
    >>> [axes.get_ylabel() for axes in figure.axes], figure.axes[0].get_title()
    (['before', '', 'after', ''], 'a')
    """
    counts = {name: len(images) for name, images in named.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InputError(f"named must have rows of equal length, at least 1, got lengths {counts}")
    columns = next(iter(counts.values()))
    panels, figure = panel_grid(len(named), columns, size)
    for row, (name, images) in zip(panels, named.items(), strict=True):
        show_row(row, [rgb.to_rgb(image) for image in images], name)
    for axes, text in zip(panels[0], titles, strict=False):
        axes.set_title(literal(text), fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure


def panel_grid(rows: int, columns: int, size: float, *, below: float = 0.0) -> tuple[Any, "Figure"]:
    """Return axes ``[rows, columns]`` of ``size`` inches, close together, with ``below`` inches for text under each."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(size * columns + 0.3, (size + below) * rows + 0.4), dpi=110, layout=engine)
    return figure.subplots(rows, columns, squeeze=False), figure


def show_row(row: Sequence["Axes"], images: Sequence[np.ndarray], name: str) -> None:
    """Show images in a row of axes, with the name to the left."""
    for axes, image in zip(row, images, strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)  # a frame separates white images from the white page
    row[0].set_ylabel(literal(name), fontsize=8, rotation=0, ha="right", va="center")


CELL_SIZE = 0.31  # inches
MAX_CELLS = 20  # per side; the values of larger arrays would be illegible


@named_errors
def annotated_arrays(
    arrays: Mapping[str, Any], frames: Mapping[str, "Box"] | None = None, *, title: str = ""
) -> "Figure":
    """Plot arrays side by side with the values in the cells: positive red, negative blue, scaled per array.

    Args:
        arrays: arrays ``(H, W)`` by title.
        frames: cells to outline, by array title: ``((top, bottom), (left, right))``, ends excluded.
        title: figure title.

    Raises:
        InputError: if there is no array, one is not ``(H, W)`` or exceeds 20 cells a side, or a frame names no array.

    Lecture rows 002-07, 003-03, 004-06.

    >>> image = np.array([[1.0, 0.0], [-2.5, 1e-9]])
    >>> figure = annotated_arrays({"image": image, "output": np.eye(1)}, {"image": ((0, 1), (0, 2))})
    >>> [text.get_text() for text in figure.axes[0].texts], len(figure.axes[0].patches)
    (['1', '0', '-2.5', '1e-09'], 1)
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    invalid = [
        f"{name} {a.shape}" for name, a in arrays.items() if a.ndim != 2 or not 0 < a.size or max(a.shape) > MAX_CELLS
    ]
    if invalid or not arrays:
        got = invalid[0] if invalid else "none"
        raise InputError(f"arrays must be (H, W) with 1 to {MAX_CELLS} cells a side, got {got}")
    frames = frames or {}
    if unknown := [name for name in frames if name not in arrays]:
        raise InputError(f"frames must name arrays, one of {', '.join(arrays)}, got {unknown[0]!r}")
    widths = [array.shape[1] for array in arrays.values()]
    height = max(array.shape[0] for array in arrays.values())
    size = CELL_SIZE * (sum(widths) + 1.5 * len(widths)), CELL_SIZE * height + 0.45 + 0.3 * bool(title)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(1, len(arrays), squeeze=False, width_ratios=widths)[0]
    for axes, (name, array) in zip(panels, arrays.items(), strict=True):
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0))
        axes.imshow(rgb.diverging(array, 1.8 * largest), interpolation="nearest")  # pale enough to read the values
        for (i, j), value in np.ndenumerate(array):
            axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=6.5 if abs(value) >= 100 else 8)
        if name in frames:
            (top, bottom), (left, right) = frames[name]
            corner, orange = (left - 0.5, top - 0.5), f"#{bytes(rgb.FRAME).hex()}"
            axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, lw=2.5, ec=orange))
        axes.set_title(literal(name), fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)
        axes.set_anchor("N")
    figure.suptitle(literal(title), fontsize=10)
    return figure
