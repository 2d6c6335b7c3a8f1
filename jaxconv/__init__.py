"""jaxconv: convolutional networks as pure functions of arrays, compiled by XLA.

    from jaxconv import Conv, Dense, MaxPool, flatten, relu, serial      # a network
    from jaxconv import ops                                              # the functions it is made of

Importing this loads jax, numpy and jaxtyping, and does nothing else: no device is touched. The other rooms,
``jaxconv.data``, ``jaxconv.train``, ``jaxconv.explain``, ``jaxconv.plot`` and so on, load when they are first used.
"""

import importlib
from types import ModuleType

from jaxconv import layers, models, ops, shapes
from jaxconv.errors import DtypeError, InputError
from jaxconv.layers import *  # noqa: F403
from jaxconv.ops import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["DtypeError", "InputError", "layers", "models", "ops", "shapes", *layers.__all__, *ops.__all__]

_LAZY = (
    "audio",
    "bench",
    "compare",
    "data",
    "descriptors",
    "devices",
    "experiment",
    "explain",
    "filters",
    "plot",
    "runtime",
    "train",
)


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"jaxconv.{name}")
    raise AttributeError(f"module 'jaxconv' has no attribute {name!r}")
