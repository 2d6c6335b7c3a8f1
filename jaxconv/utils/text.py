"""Show text that came from files and folders of others."""

import unicodedata

# Controls, formats that reorder text, surrogates (bytes that are no UTF-8), private characters, line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: object) -> str:
    r"""Text with every character that a terminal would obey, or could not show, as an escape.

    Names of classes, folders and files go through it before they are printed, so that none can move the cursor, change
    colours, reverse the line or end the program on a surrogate.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    >>> printable("Löwe")
    'Löwe'
    """
    return "".join(
        character if unicodedata.category(character) not in _HIDDEN else _escape(character) for character in str(text)
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
