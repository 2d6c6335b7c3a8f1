"""Reading a pickle that somebody else made, without running what is in it: arrays of bytes, as CIFAR's files have."""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.utils.terminal import printable

# A batch of CIFAR-10 has some 30,000 opcodes, and 50 tuples.
MOST_OPCODES = 1_000_000
MOST_TUPLES = 1_000  # so many in one another can be hashed
MOST_COPIES = 4  # of a pickle's bytes, together


class _Dtype:
    """Stands in for ``numpy.dtype``, whose state could make it one of Python objects: their addresses, as bytes."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        if code not in ("u1", "|u1", b"u1", b"|u1"):
            raise pickle.UnpicklingError(f"dtype {code!r:.20} is not uint8")

    def __setstate__(self, _: object) -> None:
        """It is uint8, whatever the pickle says."""


class _Array:
    """Stands in for ``numpy.ndarray`` until all is read; empty until its state is set."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.array, self.spend = np.empty(0, np.uint8), spend

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(shape, tuple) and isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
            raise pickle.UnpicklingError("an array without a shape, a dtype or bytes")
        self.spend(len(raw))
        self.array = np.frombuffer(bytearray(raw), np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Knows all that a dict of lists, strings and arrays of bytes is made with, and nothing of numpy's own.

    numpy trusts the state that a pickle gives it. And what a pickle has once it can copy as often as it has opcodes, so
    the copies are counted.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.left = MOST_COPIES * len(raw)

    def find_class(self, module: str, name: str) -> Any:
        names = {
            ("numpy.core.multiarray", "_reconstruct"): self.reconstruct,  # numpy has moved it since
            ("numpy._core.multiarray", "_reconstruct"): self.reconstruct,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self.latin1,
        }
        if (module, name) not in names:
            raise InputError(f"it asks for {printable(f'{module}.{name}'):.100}, which makes no array of numbers")
        return names[module, name]

    def reconstruct(self, *_: object) -> _Array:
        return _Array(self.spend)

    def latin1(self, text: str, encoding: str) -> bytes:
        """Bytes, which Python 3 writes as text into a pickle for Python 2."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"encoding {encoding!r}")
        self.spend(len(text))
        return text.encode("latin1")

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it makes more bytes than it has")


def _scan(raw: bytes) -> None:
    """Refuse what would exhaust memory or the stack of Python's own unpickler.

    It takes memory for a memo of any number that it is told, and tuples a million deep end the process when hashed.
    """
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if count >= MOST_OPCODES or tuples > MOST_TUPLES:
            raise pickle.UnpicklingError("more opcodes or tuples than a batch of pictures has")
        if "PUT" in opcode.name and isinstance(argument, int) and not 0 <= argument <= MOST_OPCODES:
            raise pickle.UnpicklingError(f"a memo of number {argument}")


def _arrays(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays for their stand-ins. What is in it many times is looked at once, or it could take years."""
    if id(value) not in done:
        new = value
        if isinstance(value, _Array):
            new = value.array
        elif isinstance(value, dict):
            new = {key: _arrays(inner, done) for key, inner in value.items()}
        elif isinstance(value, list | tuple):
            new = type(value)([_arrays(inner, done) for inner in value])
        done[id(value)] = new
    return done[id(value)]


def load_arrays(raw: bytes, path: object) -> Any:
    """The dicts, lists, strings and arrays in a pickle of Python 2 or 3; strings of Python 2 come as bytes.

    A pickle is a program: Python's own loader calls whatever function it names. Here it may name numpy's arrays only,
    and only arrays of uint8, which is all that CIFAR's files have.

    Args:
        raw: the pickle.
        path: where it is from, for errors.

    Raises:
        InputError: no pickle, a damaged one, one with an array of anything but uint8, or one that asks for more.

    >>> load_arrays(pickle.dumps({"data": np.arange(3, dtype=np.uint8)}, protocol=2), "file")
    {'data': array([0, 1, 2], dtype=uint8)}
    >>> load_arrays(pickle.dumps(print), "file")
    Traceback (most recent call last):
    jaxconv.errors.InputError: file is refused: it asks for builtins.print, which makes no array of numbers
    """
    try:
        _scan(raw)
        return _arrays(_Unpickler(raw).load(), {})
    except InputError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        why = printable(f"{type(error).__name__}: {error}")
        raise InputError(f"{path} is not a whole pickle of arrays of bytes ({why:.200})") from None
