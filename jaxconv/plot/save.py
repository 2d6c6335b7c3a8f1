"""Figures on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaxconv.utils.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure, whole or not at all, in the format of the path's suffix: .png, .pdf, .svg.

    Raises:
        InputError: the file cannot be written.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> path = Path(tempfile.mkdtemp()) / "empty.png"
    >>> save_figure(Figure(), path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    with writing(path) as file:
        figure.savefig(file, format=path.suffix[1:])
