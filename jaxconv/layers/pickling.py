"""Pickle layers by the calls that created them, as their inner functions have no importable name."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import jax

# Modules whose functions return initializers.
INITIALIZERS = (jax.nn.initializers.variance_scaling.__globals__["__name__"], f"{__package__}.initializers")


class Recipe(NamedTuple):
    """The call that created a layer, and the fields that were replaced since.

    Attributes:
        make: function that was called.
        args, options: its arguments.
        changes: replaced fields and their values.
    """

    make: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012
    changes: dict[str, Any] = {}  # noqa: RUF012

    def reduce(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the value of the layer's ``__reduce__``: a function and its picklable arguments."""
        return recreate_layer, (self.make, *map(_storable, (self.args, self.options, self.changes)))


def recreate_layer(
    make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], changes: dict[str, Any]
) -> Any:
    """Recreate the layer of a recipe."""
    return make(*args, **options)._replace(**changes)


class _Call(NamedTuple):
    """A value that is pickled as the call that creates it."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return functools.partial(self.function, *self.args, **self.options), ()


def _storable(value: Any) -> Any:
    """Replace the parts of a value that pickle rejects, such as functions of jax and initializers, by calls."""
    if type(value) in (tuple, list):
        return type(value)(map(_storable, value))
    if type(value) is dict:
        return {name: _storable(item) for name, item in value.items()}
    if type(value) is functools.partial:
        return _Call(functools.partial, (_storable(value.func), *_storable(value.args)), _storable(value.keywords))
    if not callable(value) or isinstance(value, type | BuiltinFunctionType):
        return value
    module, name = str(getattr(value, "__module__", None)), getattr(value, "__qualname__", "")
    if isinstance(value, FunctionType):
        if module in INITIALIZERS and "<locals>" in name:  # an initializer, such as the result of glorot_uniform()
            make = getattr(sys.modules[module], name.partition(".")[0])
            options = inspect.getclosurevars(value).nonlocals
            parameters = inspect.signature(make).parameters
            return _Call(make, (), _storable({name: options[name] for name in parameters if name in options}))
    elif getattr(sys.modules.get(module), name, None) is value:  # a function wrapped by jax, such as jax.nn.relu
        return _Call(_named, (module, name))
    return value


def _named(module: str, name: str) -> Any:
    __import__(module)
    return getattr(sys.modules[module], name)
