"""Check calls against signatures; errors list the arguments of the function and suggest the closest name."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from jaxconv.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

# Names of the same argument in PyTorch, Keras and Flax, where a close match would not find it.
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
    """Wrap a function so that a call with invalid arguments raises an :class:`ArgumentError`, not a ``TypeError``.

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
    """Check that arguments match the function's signature.

    Raises:
        ArgumentError: if there are too many arguments, or one is unknown, given twice or missing.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError:
        name = getattr(function, "__name__", repr(function))
        raise _call_error(name, signature, args, options).from_source(name) from None


def _call_error(
    function_name: str, signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]
) -> ArgumentError:
    """Return the error for arguments that do not match the signature."""
    usage = f"It takes {function_name}({_format_signature(signature)})"
    parameters = signature.parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in options:
        if name not in signature.parameters:
            return no_argument(name, signature.parameters, usage)
    if len(args) > len(positional):
        limit = f"{len(positional)} without a name ({', '.join(positional)})" if positional else "none without a name"
        return ArgumentError(f"{len(args)} arguments, but it takes {limit}; name the others. {usage}")
    repeated = [name for name in positional[: len(args)] if name in options]
    if repeated:
        return ArgumentError(f"{repeated[0]} is given twice. {usage}")
    supplied = {*positional[: len(args)], *options}
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in required if name not in supplied]
    return ArgumentError(f"{' and '.join(missing)} must be given. {usage}")


def no_argument(name: str, names: Iterable[str], usage: str = "") -> ArgumentError:
    """Return the error for an unknown argument, with the closest of ``names``.

    >>> print(no_argument("epoch", ["epochs", "seed"]))
    no argument is called epoch: did you mean epochs? It takes epochs, seed
    """
    names = list(names)
    closest = nearest(name, names)
    suggestion = f": did you mean {closest}?" if closest else "."
    usage = usage or f"It takes {', '.join(names)}"
    return ArgumentError(f"no argument is called {name}{suggestion} {usage}")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the argument that a wrong name probably refers to, by synonyms and spelling, or None.

    >>> nearest("strides", ["stride", "padding"]), nearest("filters", ["features"]), nearest("x", ["window_shape"])
    ('stride', 'features', None)
    """
    names = list(names)
    synonyms = [other for other in SYNONYMS.get(name, ()) if other in names]
    return next(iter(synonyms + difflib.get_close_matches(name, names, n=1)), None)


def _format_signature(signature: inspect.Signature) -> str:
    """Format the names of the parameters, without types and defaults."""
    names, has_star = [], False
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not has_star:
            names.append("*")
        has_star = has_star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        names.append("*" * (p.kind is p.VAR_POSITIONAL) + "**" * (p.kind is p.VAR_KEYWORD) + p.name)
    return ", ".join(names)
