"""How a layer was made: what pickle stores of it, since a layer's own functions have no name in any module."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import jax

# The modules whose functions return initializers.
INITIALIZERS = (jax.nn.initializers.variance_scaling.__globals__["__name__"], f"{__package__}.initializers")


class Recipe(NamedTuple):
    """The call that made a layer, and what was replaced in it since.

    Attributes:
        make: the function that was called.
        args, options: its arguments.
        changes: the fields that were replaced.
    """

    make: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012
    changes: dict[str, Any] = {}  # noqa: RUF012

    def reduced(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what the layer's ``__reduce__`` has to: a function, and arguments in a form that pickle takes."""
        return make_again, (self.make, *map(_storable, (self.args, self.options, self.changes)))


def make_again(
    make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], changes: dict[str, Any]
) -> Any:
    """Return the layer of a recipe."""
    return make(*args, **options)._replace(**changes)


class _Call(NamedTuple):
    """A value that pickle stores as the call that makes it."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return functools.partial(self.function, *self.args, **self.options), ()


def _storable(value: Any) -> Any:
    """Return the value with calls in place of what pickle does not take: functions of jax, and initializers."""
    if type(value) in (tuple, list):
        return type(value)(map(_storable, value))
    if type(value) is dict:
        return {name: _storable(each) for name, each in value.items()}
    if type(value) is functools.partial:
        return _Call(functools.partial, (_storable(value.func), *_storable(value.args)), _storable(value.keywords))
    if not callable(value) or isinstance(value, type | BuiltinFunctionType):
        return value
    module, name = str(getattr(value, "__module__", None)), getattr(value, "__qualname__", "")
    if isinstance(value, FunctionType):
        if module in INITIALIZERS and "<locals>" in name:  # what glorot_uniform() returns, for one
            make = getattr(sys.modules[module], name.partition(".")[0])
            options = inspect.getclosurevars(value).nonlocals
            takes = inspect.signature(make).parameters
            return _Call(make, (), _storable({name: options[name] for name in takes if name in options}))
    elif getattr(sys.modules.get(module), name, None) is value:  # jax.nn.relu: a function that jax has wrapped
        return _Call(_named, (module, name))
    return value


def _named(module: str, name: str) -> Any:
    __import__(module)
    return getattr(sys.modules[module], name)
