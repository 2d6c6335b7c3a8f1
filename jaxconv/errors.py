"""The errors that tell a user what was given, what was wanted and what would work."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What was given cannot work. The message is one line: who says so, what was given, and the fix."""


class DtypeError(InputError, TypeError):
    """An array of the wrong dtype. Both a ``ValueError`` and a ``TypeError``, so either ``except`` finds it."""


class ArgumentError(InputError, TypeError):
    """A call with arguments that the function does not take. A ``TypeError`` too, which Python raises for them."""


class RangeWarning(UserWarning):
    """The pixels of images are not in the range that the network is meant for, from 0 to 1."""


class DeadLayerWarning(UserWarning):
    """All that a layer makes is 0, whatever it is shown: it passes nothing on, and learns no more."""


@contextmanager
def said_by(name: str) -> Iterator[None]:
    """Put the name of an op or a layer before the errors raised within: ``conv2: conv: the window …``.

    >>> with said_by("conv"):
    ...     raise InputError("stride 0: give an int of at least 1")
    Traceback (most recent call last):
    jaxconv.errors.InputError: conv: stride 0: give an int of at least 1
    """
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}").with_traceback(error.__traceback__) from None


def unknown(what: str, name: object, known: Iterable[str], *, by: str | None = None) -> InputError:
    """The error for a name that is not in a table, with the nearest name that is, and ``by`` whom it is raised.

    >>> print(unknown("model", "lenet", ["lenet5", "mlp"]))
    unknown model 'lenet': did you mean 'lenet5'? Known: lenet5, mlp
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return InputError(f"{f'{by}: ' if by else ''}unknown {what} {name!r}:{hint} Known: {', '.join(known)}")


def known(what: str, name: object, names: Iterable[str], *, by: str | None = None) -> None:
    """Refuse what is not one of the names.

    >>> known("model", "mlp", ["lenet5", "mlp"])
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        raise unknown(what, name, names, by=by)
