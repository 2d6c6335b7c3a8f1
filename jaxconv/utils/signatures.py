"""Calls with the wrong arguments: what Python tells in a ``TypeError``, in a sentence that names what is right."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from jaxconv.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

# What PyTorch, Keras and Flax call the same, where the names are not alike.
SYNONYMS = {
    "bias": ("use_bias",),
    "epsilon": ("eps",),
    "filters": ("features",),
    "kernel_size": ("window_shape",),
    "lr": ("learning_rate",),
    "out_channels": ("features",),
    "out_features": ("features",),
    "p": ("rate",),
    "pool_size": ("window_shape",),
    "units": ("features",),
}


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, whose calls raise an :class:`ArgumentError` where Python would raise a ``TypeError``.

    >>> @checked_call
    ... def pool(window_shape, *, stride=1):
    ...     return window_shape, stride
    >>> pool(2, strides=2)
    Traceback (most recent call last):
    jaxconv.errors.ArgumentError: pool: no argument is called strides: did you mean stride? \
It takes pool(window_shape, *, stride)
    """

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        check_call(function, args, options)
        return function(*args, **options)

    return call


def check_call(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse arguments that do not fit the function's signature.

    Raises:
        ArgumentError: too many arguments, an unknown name, a name given twice, or one that is missing.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError:
        who = getattr(function, "__name__", repr(function))
        raise _error(who, signature, args, options).from_source(who) from None


def _error(who: str, signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]) -> ArgumentError:
    takes = f"It takes {who}({_names(signature)})"
    parameters = signature.parameters.values()
    by_place = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in options:
        if name not in signature.parameters:
            return no_argument(name, signature.parameters, takes)
    if len(args) > len(by_place):
        places = f"{len(by_place)} without a name ({', '.join(by_place)})" if by_place else "none without a name"
        return ArgumentError(f"{len(args)} arguments, but it takes {places}; name the others. {takes}")
    twice = [name for name in by_place[: len(args)] if name in options]
    if twice:
        return ArgumentError(f"{twice[0]} is given twice. {takes}")
    given = {*by_place[: len(args)], *options}
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in required if name not in given]
    return ArgumentError(f"{' and '.join(missing)} must be given. {takes}")


def no_argument(name: str, names: Iterable[str], takes: str = "") -> ArgumentError:
    """Return the error for an argument that a function has not.

    >>> print(no_argument("epoch", ["epochs", "seed"]))
    no argument is called epoch: did you mean epochs? It takes epochs, seed
    """
    names = list(names)
    near = nearest(name, names)
    hint = f": did you mean {near}?" if near else "."
    takes = takes or f"It takes {', '.join(names)}"
    return ArgumentError(f"no argument is called {name}{hint} {takes}")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the argument that a wrong name is likely to mean, if there is one.

    >>> nearest("strides", ["stride", "padding"]), nearest("filters", ["features"]), nearest("x", ["window_shape"])
    ('stride', 'features', None)
    """
    names = list(names)
    synonyms = [other for other in SYNONYMS.get(name, ()) if other in names]
    return next(iter(synonyms + difflib.get_close_matches(name, names, n=1)), None)


def _names(signature: inspect.Signature) -> str:
    """Return the names of a signature, without types and defaults."""
    names, star = [], False
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            names.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        names.append("*" * (p.kind is p.VAR_POSITIONAL) + "**" * (p.kind is p.VAR_KEYWORD) + p.name)
    return ", ".join(names)
