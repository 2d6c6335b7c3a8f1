"""Names in figures."""

from collections.abc import Iterable

from jaxconv.utils.text import printable


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
