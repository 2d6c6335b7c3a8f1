"""Exceptions and warnings of jaxconv, and helpers that build their messages."""

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, Self, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")


class InputError(ValueError):
    """Invalid input. The message is one line: the function, the invalid argument and a suggestion.

    Attributes:
        source: name of the function that the message begins with; None until it is set.
    """

    source: str | None = None

    def from_source(self, source: str) -> Self:
        """Return the error with ``source`` before its message; an error that has a source is returned unchanged.

        >>> print(InputError("stride 0: give an int of at least 1").from_source("conv").from_source("sobel"))
        conv: stride 0: give an int of at least 1
        """
        return self if self.source is not None else self._prefixed(source, source)

    def _prefixed(self, prefix: str, source: str) -> Self:
        error = type(self)(f"{prefix}: {self}").with_traceback(self.__traceback__)
        error.source = source
        return error


class DtypeError(InputError, TypeError):
    """An array of the wrong dtype; both a ``ValueError`` and a ``TypeError``, so either ``except`` catches it."""


class ArgumentError(InputError, TypeError):
    """A call with arguments that the function does not accept; also a ``TypeError``, as in Python itself."""


class RangeWarning(UserWarning):
    """Pixels of images are outside the expected range, 0 to 1."""


class DeadLayerWarning(UserWarning):
    """All activations of a layer are 0 for every input, so it passes no signal and gets no gradient."""


@overload
def named_errors(function: Callable[P, R], *, name: str | None = None) -> Callable[P, R]: ...
@overload
def named_errors(function: None = None, *, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def named_errors(
    function: Callable[P, R] | None = None, *, name: str | None = None
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Put the function's name before the messages of the InputErrors raised in it.

    The innermost function is named: an error of ``conv`` within ``sobel`` begins with ``conv``. Compiled code is not
    affected, since the wrapper runs while tracing only.

    Args:
        function: function to decorate.
        name: name to use instead of the function's own.

    >>> @named_errors
    ... def root(x):
    ...     if x < 0:
    ...         raise InputError(f"x={x} must not be negative")
    ...     return x**0.5
    >>> root(-1)
    Traceback (most recent call last):
    jaxconv.errors.InputError: root: x=-1 must not be negative
    """
    if function is None:
        return functools.partial(named_errors, name=name)
    source = name or function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise error.from_source(source) from error.__cause__

    return call


@contextmanager
def error_context(name: str) -> Iterator[None]:
    """Put the path of a layer or a file before the InputErrors raised within: ``conv2: conv: the window …``.

    >>> with error_context("conv2"), error_context("conv"):
    ...     raise InputError("stride 0: give an int of at least 1")
    Traceback (most recent call last):
    jaxconv.errors.InputError: conv2: conv: stride 0: give an int of at least 1
    """
    try:
        yield
    except InputError as error:
        raise error._prefixed(name, error.source or name) from error.__cause__


def unknown_name_error(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that is not among the choices; the message suggests the closest choice.

    >>> print(unknown_name_error("model", "lenet", ["lenet5", "mlp"]))
    unknown model 'lenet': did you mean 'lenet5'? Known: lenet5, mlp
    """
    choices = list(choices)
    closest = difflib.get_close_matches(str(name), choices, n=1)
    suggestion = f" did you mean {closest[0]!r}?" if closest else ""
    return InputError(f"unknown {kind} {name!r}:{suggestion} Known: {', '.join(choices)}")
