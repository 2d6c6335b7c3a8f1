"""How a layer was made: what pickle stores of it, since a layer's own functions have no name in any module."""

import io
import pickle
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple


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

    def dumps(self) -> bytes:
        """Return the recipe as bytes.

        Raises:
            pickle.PicklingError, AttributeError: an argument that pickle does not take, such as a lambda.
        """
        file = io.BytesIO()
        _Pickler(file).dump(tuple(self))
        return file.getvalue()


def make_again(recipe: bytes) -> Any:
    """Return a layer made from the bytes of its recipe."""
    make, args, options, changes = pickle.loads(recipe)
    return make(*args, **options)._replace(**changes)


class _Pickler(pickle.Pickler):
    """Stores the functions that jax has wrapped, such as ``jax.nn.relu``, by name: pickle itself cannot."""

    def reducer_override(self, value: Any) -> Any:
        if not callable(value) or isinstance(value, type | FunctionType | BuiltinFunctionType):
            return NotImplemented
        module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
        if isinstance(name, str) and getattr(sys.modules.get(str(module)), name, None) is value:
            return _named, (module, name)
        return NotImplemented


def _named(module: str, name: str) -> Any:
    __import__(module)
    return getattr(sys.modules[module], name)
