"""jaxconv: convolutional networks as pure functions of arrays, compiled by XLA.

    from jaxconv import Conv, Dense, MaxPool, flatten, relu, serial      # a network
    from jaxconv import ops                                              # the functions that layers call

Importing jaxconv loads no other module. Layers, ops and the other packages, such as ``jaxconv.data``,
``jaxconv.train``, ``jaxconv.explain`` and ``jaxconv.plot``, are loaded at first use.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from jaxconv.errors import DtypeError as DtypeError
from jaxconv.errors import InputError as InputError

if TYPE_CHECKING:
    from jaxconv import layers as layers
    from jaxconv import models as models
    from jaxconv import ops as ops
    from jaxconv import shapes as shapes
    from jaxconv.layers import *  # noqa: F403
    from jaxconv.ops import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":  # module attributes that the import system looks up
        raise AttributeError(f"module 'jaxconv' has no attribute {name!r}")
    if importlib.util.find_spec(f"jaxconv.{name}"):
        return importlib.import_module(f"jaxconv.{name}")
    layers, ops = (importlib.import_module(f"jaxconv.{package}") for package in ("layers", "ops"))
    public = {name: getattr(package, name) for package in (layers, ops) for name in package.__all__}
    globals().update(public)  # later lookups of these names bypass this function
    if name == "__all__":
        return ["DtypeError", "InputError", "layers", "models", "ops", "shapes", *public]
    if name not in public:
        raise AttributeError(f"module 'jaxconv' has no attribute {name!r}")
    return public[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
