"""Show text that came from files and folders of others."""

import unicodedata

# Controls, formats that reorder text, surrogates (bytes that are no UTF-8), private characters, line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: object, *, keep: str = "") -> str:
    r"""Text with every character that a terminal would obey, or could not show, as an escape.

    Names of classes, folders and files go through it before they are printed, so that none can move the cursor, change
    colours, reverse the line or end the program on a surrogate.

    Args:
        text: what to show, or its ``str``.
        keep: characters to leave as they are, such as a line break.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    >>> printable("Löwe")
    'Löwe'
    """
    return "".join(
        character if character in keep or unicodedata.category(character) not in _HIDDEN else escaped(character)
        for character in str(text)
    )


def error_line(error: BaseException) -> str:
    r"""The first line of an error's message, :func:`printable`; its type where it has none.

    >>> error_line(ValueError("bad\x07 size\nat byte 5")), error_line(MemoryError())
    ('bad\\x07 size', 'MemoryError')
    """
    return printable(str(error).partition("\n")[0] or type(error).__name__)


def escaped(character: str) -> str:
    r"""A character in ASCII, as Python writes it in a string.

    >>> print(escaped("é"))
    \xe9
    """
    return character.encode("unicode_escape").decode("ascii")
