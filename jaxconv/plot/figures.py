"""Saving of figures, and escaping of text in them."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxconv.utils.files import writing
from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure atomically, in the format of the path's suffix, such as .png, .pdf or .svg.

    Raises:
        InputError: if the file cannot be written.

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
    """Draw a figure and write it as PNG; a failure is a warning, so that it never costs the result of a run.

    Args:
        path: file to write.
        draw: a figure, or a function that returns one.

    Returns:
        True if the file was written.

    >>> import tempfile
    >>> from jaxconv.plot import annotated_arrays
    >>> save(Path(tempfile.mkdtemp()) / "array.png", lambda: annotated_arrays({"a": [[1, 2]]}))
    True
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # matplotlib draws boxes for missing glyphs
            figure = draw() if callable(draw) else draw
            save_figure(figure, path)
    except Exception as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"the picture {path} is left out: {type(error).__name__}: {reason:.300}", stacklevel=2)
        return False
    return True


def literal(text: object) -> str:
    r"""Escape text for matplotlib: ``$`` starts no formula, and unprintable characters become escapes.

    Every title, label and name in these figures passes through it.

    >>> print(literal("$5 or $6"))
    \$5 or \$6
    """
    return printable(text, keep="\n").replace("$", r"\$")


def literals(texts: Iterable[object]) -> list[str]:
    """Apply :func:`literal` to each text.

    >>> literals([1, "b"])
    ['1', 'b']
    """
    return [literal(text) for text in texts]
