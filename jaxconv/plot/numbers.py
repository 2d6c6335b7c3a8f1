"""Small arrays with their numbers written in them, as on a board."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot.rgb import FRAME, signed
from jaxconv.plot.words import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.plot.spatial import Box

CELL = 0.31  # inches
LARGEST = 20  # cells a side; of more the numbers could not be read


def numbers(arrays: Mapping[str, Any], frames: Mapping[str, "Box"] | None = None, *, title: str = "") -> "Figure":
    """Arrays side by side, a number in each cell: red above 0, blue below, the deepest the largest of its array.

    Args:
        arrays: by the name that stands above each, ``(H, W)``.
        frames: of some of them, cells to put a frame around: ``((top, below), (left, beyond))``.
        title: above all.

    Raises:
        InputError: no array, one that is not ``(H, W)`` or too large to be read, or a frame of none of them.

    Lecture rows 002-07, 003-03, 004-06.

    >>> image = np.array([[1.0, 0.0], [-2.5, 1e-9]])
    >>> figure = numbers({"image": image, "output": np.eye(1)}, {"image": ((0, 1), (0, 2))})
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
            f"numbers: arrays (H, W) of at most {LARGEST} cells a side are wanted, not {wrong[0] if wrong else 'none'}"
        )
    frames = frames or {}
    if strange := [name for name in frames if name not in shown]:
        raise InputError(f"numbers: a frame for {strange[0]!r}, but there are {', '.join(shown)}")
    widths = [array.shape[1] for array in shown.values()]
    height = max(array.shape[0] for array in shown.values())
    size = CELL * (sum(widths) + 1.5 * len(widths)), CELL * height + 0.45 + 0.3 * bool(title)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, width_ratios=widths)[0]
    for axes, (name, array) in zip(panels, shown.items(), strict=True):
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0))
        axes.imshow(signed(array, 1.8 * largest), interpolation="nearest")  # not so deep that numbers are lost in it
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
