"""Many small pictures on one figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxconv.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grid(
    pictures: Sequence[Any],
    titles: Sequence[str] = (),
    *,
    columns: int = 8,
    title: str = "",
    size: float = 1.3,
) -> "Figure":
    """Pictures side by side, row after row.

    Args:
        pictures: each ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.pixels` makes them; None leaves a gap.
        titles: above each; fewer, or none, will do.
        columns: how many in a row, at most.
        title: above all.
        size: of one, in inches.

    Raises:
        InputError: there is no picture.

    >>> import numpy as np
    >>> figure = grid([np.zeros((4, 4, 3), np.uint8)] * 3, ["a", "b", "c"], columns=2)
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'b', 'c', '']
    """
    from matplotlib.figure import Figure

    if not len(pictures):
        raise InputError("grid: there is no picture to show")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    room = size + (0.18 * (1 + max(each.count("\n") for each in titles)) if titles else 0)
    figure = Figure(figsize=(size * columns, room * rows + 0.35 * bool(title)), dpi=110, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, each in zip(panels, pictures, strict=False):
        if each is not None:
            axes.imshow(each, interpolation="nearest")
    for axes, above in zip(panels, titles, strict=False):
        axes.set_title(above, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
