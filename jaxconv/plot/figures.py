"""Save figures, and write names from elsewhere into them as plain text."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxconv.utils.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from collections.abc import Iterable

from jaxconv.utils.terminal import printable


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


def save(path: Path, draw: "Callable[[], Figure] | Figure") -> bool:
    """Draw a figure and write it as PNG; what goes wrong is a warning, so that a picture never costs a result.

    Args:
        path: of the file.
        draw: a figure, or a function that makes it.

    Returns:
        Whether it is written.

    >>> import tempfile
    >>> from jaxconv.plot import annotated_arrays
    >>> save(Path(tempfile.mkdtemp()) / "array.png", lambda: annotated_arrays({"a": [[1, 2]]}))
    True
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks: boxes are drawn
            figure = draw() if callable(draw) else draw
            save_figure(figure, path)
    except Exception as error:
        why = " ".join(str(error).split())
        warnings.warn(f"the picture {path} is left out: {type(error).__name__}: {why:.300}", stacklevel=2)
        return False
    return True


def literal(text: object) -> str:
    r"""Text as matplotlib shows it literally: ``$`` begins no formula, and no character ends the drawing.

    All titles, labels and names of this room go through it.

    >>> print(literal("$5 or $6"))
    \$5 or \$6
    """
    return printable(text, keep="\n").replace("$", r"\$")


def literals(texts: Iterable[object]) -> list[str]:
    """Several texts, each :func:`literal`.

    >>> literals([1, "b"])
    ['1', 'b']
    """
    return [literal(text) for text in texts]
