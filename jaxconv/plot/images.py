"""Figures of many images: grids, rows, and small arrays with their numbers written in them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot import rgb
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from typing import TYPE_CHECKING

from jaxconv.plot.rgb import FRAME, diverging

if TYPE_CHECKING:
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
    """Pictures side by side, row after row.

    Args:
        pictures: each ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.rgb` makes them; None leaves a gap.
        titles: above each; fewer, or none, will do.
        columns: how many in a row, at most.
        title: above all.
        size: how wide one is, in inches.

    Raises:
        InputError: there is no picture.

    >>> import numpy as np
    >>> figure = image_grid([np.zeros((4, 4, 3), np.uint8)] * 3, ["a", "b", "c"], columns=2)
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'b', 'c', '']
    """
    from matplotlib.figure import Figure

    if not len(pictures):
        raise InputError("there is no picture to show")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    # As high as the highest: wide pictures would else leave gaps between the rows.
    height = size * max((len(each) / len(each[0]) for each in pictures if each is not None), default=1.0)
    room = height + 0.18 * max((1 + each.count("\n") for each in titles), default=0)
    figure = Figure(figsize=(size * columns, room * rows + 0.35 * bool(title)), dpi=110, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, each in zip(panels, pictures, strict=False):
        if each is not None:
            axes.imshow(each, interpolation="nearest")
    for axes, above in zip(panels, titles, strict=False):
        axes.set_title(literal(above), fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure


@named_errors
def image_rows(
    named: Mapping[str, Sequence[Any]], titles: Sequence[str] = (), *, title: str = "", size: float = 0.7
) -> "Figure":
    """Rows of pictures, each row with its name to the left.

    Args:
        named: of each row, by its name, its images ``(H, W, C)``: bytes, or floats from 0 to 1; in every row as many.
        titles: of the columns; fewer, or none, will do.
        title: above all.
        size: of one picture, in inches.

    Raises:
        InputError: there is no picture, or rows of different lengths.

    >>> two = np.zeros((2, 4, 4, 1))
    >>> figure = image_rows({"before": two, "after": two}, ["a"])
    >>> [axes.get_ylabel() for axes in figure.axes], figure.axes[0].get_title()
    (['before', '', 'after', ''], 'a')
    """
    counts = {name: len(images) for name, images in named.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InputError(f"of pictures, {counts}: give each row as many as the others, and at least one")
    columns = next(iter(counts.values()))
    panels, figure = panels_of(len(named), columns, size)
    for row, (name, images) in zip(panels, named.items(), strict=True):
        fill(row, [rgb.to_rgb(image) for image in images], name)
    for axes, above in zip(panels[0], titles, strict=False):
        axes.set_title(literal(above), fontsize=8)
    figure.suptitle(literal(title), fontsize=10)
    return figure


def panels_of(rows: int, columns: int, size: float, *, below: float = 0.0) -> tuple[Any, "Figure"]:
    """Axes ``[rows, columns]`` close together; ``size`` of one in inches, ``below`` the room for words there."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    close = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(size * columns + 0.3, (size + below) * rows + 0.4), dpi=110, layout=close)
    return figure.subplots(rows, columns, squeeze=False), figure


def fill(row: Sequence["Axes"], pictures: Sequence[np.ndarray], name: str) -> None:
    """A row of pictures, with its name to the left."""
    for axes, shown in zip(row, pictures, strict=True):
        axes.imshow(shown, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)  # a frame, or what is white would run into the page
    row[0].set_ylabel(literal(name), fontsize=8, rotation=0, ha="right", va="center")


CELL = 0.31  # inches
LARGEST = 20  # cells a side; of more the numbers could not be read


@named_errors
def annotated_arrays(
    arrays: Mapping[str, Any], frames: Mapping[str, "Box"] | None = None, *, title: str = ""
) -> "Figure":
    """Arrays side by side, a number in each cell: red above 0, blue below, the deepest the largest of its array.

    Args:
        arrays: by the name that stands above each, ``(H, W)``.
        frames: of some of them, cells to put a frame around: ``((top, below), (left, beyond))``.
        title: above all.

    Raises:
        InputError: no array, one that is not ``(H, W)`` or too large to be read, or a frame of none of them.

    Lecture rows 002-07, 003-03, 004-06.

    >>> image = np.array([[1.0, 0.0], [-2.5, 1e-9]])
    >>> figure = annotated_arrays({"image": image, "output": np.eye(1)}, {"image": ((0, 1), (0, 2))})
    >>> [text.get_text() for text in figure.axes[0].texts], len(figure.axes[0].patches)
    (['1', '0', '-2.5', '1e-09'], 1)
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shown = {name: np.asarray(array) for name, array in arrays.items()}
    wrong = [
        f"{name} {a.shape}" for name, a in shown.items() if a.ndim != 2 or not 0 < a.size or max(a.shape) > LARGEST
    ]
    if wrong or not shown:
        raise InputError(
            f"arrays (H, W) of at most {LARGEST} cells a side are wanted, not {wrong[0] if wrong else 'none'}"
        )
    frames = frames or {}
    if strange := [name for name in frames if name not in shown]:
        raise InputError(f"a frame for {strange[0]!r}, but there are {', '.join(shown)}")
    widths = [array.shape[1] for array in shown.values()]
    height = max(array.shape[0] for array in shown.values())
    size = CELL * (sum(widths) + 1.5 * len(widths)), CELL * height + 0.45 + 0.3 * bool(title)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, width_ratios=widths)[0]
    for axes, (name, array) in zip(panels, shown.items(), strict=True):
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0))
        axes.imshow(diverging(array, 1.8 * largest), interpolation="nearest")  # not so deep that numbers are lost in it
        for (i, j), value in np.ndenumerate(array):
            axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=6.5 if abs(value) >= 100 else 8)
        if name in frames:
            (top, below), (left, beyond) = frames[name]
            corner, orange = (left - 0.5, top - 0.5), f"#{bytes(FRAME).hex()}"
            axes.add_patch(Rectangle(corner, beyond - left, below - top, fill=False, lw=2.5, ec=orange))
        axes.set_title(literal(name), fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)
        axes.set_anchor("N")
    figure.suptitle(literal(title), fontsize=10)
    return figure
