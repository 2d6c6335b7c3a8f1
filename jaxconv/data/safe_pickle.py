"""Load an untrusted pickle without running code in it: dicts and lists of uint8 arrays, as in CIFAR's files."""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.utils.terminal import printable

# A batch of CIFAR-10 has about 30,000 opcodes and 50 tuples.
MAX_OPCODES = 1_000_000
MAX_TUPLES = 1_000  # nested tuples of this depth can still be hashed
MAX_COPIES = 4  # limit of the bytes of all arrays, as a multiple of the pickle's size


class _Dtype:
    """Replacement of ``numpy.dtype``, whose pickled state could declare objects and read raw bytes as addresses."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        if code not in ("u1", "|u1", b"u1", b"|u1"):
            raise pickle.UnpicklingError(f"dtype {code!r:.20} is not uint8")

    def __setstate__(self, _: object) -> None:
        """Ignore the state: the dtype is always uint8."""


class _Array:
    """Replacement of ``numpy.ndarray`` while unpickling; empty until its state is set."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.array, self.spend = np.empty(0, np.uint8), spend

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(shape, tuple) and isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
            raise pickle.UnpicklingError("an array without a shape, a dtype or bytes")
        self.spend(len(raw))
        self.array = np.frombuffer(bytearray(raw), np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Unpickler of dicts, lists, strings and byte arrays that calls none of numpy's functions.

    numpy trusts the pickled state, so :class:`_Dtype` and :class:`_Array` replace its classes. A pickle can create many
    copies of the same bytes, one per opcode, so their total size is limited.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.left = MAX_COPIES * len(raw)

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): self.reconstruct,  # the module's name before numpy 2
            ("numpy._core.multiarray", "_reconstruct"): self.reconstruct,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self.latin1,
        }
        if (module, name) not in allowed:
            raise InputError(f"it calls {printable(f'{module}.{name}'):.100}, which does not create a numeric array")
        return allowed[module, name]

    def reconstruct(self, *_: object) -> _Array:
        return _Array(self.spend)

    def latin1(self, text: str, encoding: str) -> bytes:
        """Convert text to bytes: in protocol 2, Python 3 stores bytes as latin1 text."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"encoding {encoding!r}")
        self.spend(len(text))
        return text.encode("latin1")

    def spend(self, num_bytes: int) -> None:
        """Subtract from the byte budget; raise UnpicklingError if it is exceeded."""
        self.left -= num_bytes
        if self.left < 0:
            raise pickle.UnpicklingError(f"its arrays are more than {MAX_COPIES} times as large as the pickle")


def _check_opcodes(raw: bytes) -> None:
    """Raise UnpicklingError for a pickle that would exhaust memory or the stack of Python's unpickler.

    The unpickler allocates memory for any memo index, and hashing a million nested tuples crashes the process.
    """
    num_tuples = 0
    for i, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        num_tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if i >= MAX_OPCODES or num_tuples > MAX_TUPLES:
            raise pickle.UnpicklingError("more opcodes or tuples than a batch of images has")
        if "PUT" in opcode.name and isinstance(argument, int) and not 0 <= argument <= MAX_OPCODES:
            raise pickle.UnpicklingError(f"memo index {argument} is out of range")


def _replace_arrays(value: Any, replaced: dict[int, Any]) -> Any:
    """Replace each :class:`_Array` in nested containers by its array; ``replaced`` caches shared objects by id.

    Without the cache, containers that share children take exponential time.
    """
    if id(value) not in replaced:
        result = value
        if isinstance(value, _Array):
            result = value.array
        elif isinstance(value, dict):
            result = {key: _replace_arrays(child, replaced) for key, child in value.items()}
        elif isinstance(value, list | tuple):
            result = type(value)([_replace_arrays(child, replaced) for child in value])
        replaced[id(value)] = result
    return replaced[id(value)]


def load_arrays(raw: bytes, path: object) -> Any:
    """Load the dicts, lists, strings and uint8 arrays of a pickle of Python 2 or 3; Python 2 strings become bytes.

    A pickle is a program: Python's own loader calls any function that it names. This loader only allows numpy arrays of
    uint8, which is all that CIFAR's files contain.

    Args:
        raw: content of the pickle file.
        path: name of the file in error messages.

    Raises:
        InputError: if ``raw`` is not a pickle, is damaged, contains an array of another dtype, or names any other
            function or class.

    >>> load_arrays(pickle.dumps({"data": np.arange(3, dtype=np.uint8)}, protocol=2), "file")
    {'data': array([0, 1, 2], dtype=uint8)}
    >>> load_arrays(pickle.dumps(print), "file")
    Traceback (most recent call last):
    jaxconv.errors.InputError: file is rejected: it calls builtins.print, which does not create a numeric array
    """
    try:
        _check_opcodes(raw)
        return _replace_arrays(_Unpickler(raw).load(), {})
    except InputError as error:
        raise InputError(f"{path} is rejected: {error}") from None
    except Exception as error:  # a damaged pickle can raise almost any exception
        reason = printable(f"{type(error).__name__}: {error}")
        raise InputError(f"{path} is not a complete pickle of uint8 arrays ({reason:.200})") from None
