"""Reading a pickle that somebody else made, without running what is in it."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxconv.errors import InputError


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


# All that a dict of lists, strings and arrays of numbers is made with. numpy has moved its function since.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise InputError(f"it asks for {module}.{name}, which makes no array of numbers")
        return ALLOWED[module, name]


def read_pickle(raw: bytes, path: object) -> Any:
    """The dicts, lists, strings and arrays in a pickle of Python 2 or 3; strings of Python 2 come as bytes.

    A pickle is a program: Python's own loader calls whatever function it names. Here it may name numpy's arrays only.

    Args:
        raw: the pickle.
        path: where it is from, for errors.

    Raises:
        InputError: no pickle, a damaged one, or one that asks for anything else.

    >>> read_pickle(pickle.dumps({"data": np.arange(3, dtype=np.uint8)}, protocol=2), "file")
    {'data': array([0, 1, 2], dtype=uint8)}
    >>> read_pickle(pickle.dumps(print), "file")
    Traceback (most recent call last):
    jaxconv.errors.InputError: file is refused: it asks for builtins.print, which makes no array of numbers
    """
    try:
        return _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is not a whole pickle of arrays ({type(error).__name__}: {error})") from None
