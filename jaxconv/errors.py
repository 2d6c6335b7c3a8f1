"""The errors that tell a user what was given, what was wanted and what would work."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given cannot work. The message is one line: who says so, what was given, and the fix."""


class DtypeError(InputError, TypeError):
    """An array of the wrong dtype. Both a ``ValueError`` and a ``TypeError``, so either ``except`` finds it."""


def unknown(what: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest name that is.

    >>> print(unknown("model", "lenet", ["lenet5", "mlp"]))
    unknown model 'lenet': did you mean 'lenet5'? Known: lenet5, mlp
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what} {name!r}:{hint} Known: {', '.join(known)}")


def known(what: str, name: object, names: Iterable[str]) -> None:
    """Refuse what is not one of the names.

    >>> known("model", "mlp", ["lenet5", "mlp"])
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        raise unknown(what, name, names)
