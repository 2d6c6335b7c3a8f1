"""Hostile pickles: no code is run, no pickled numpy state is trusted, and errors name the rejected function."""

import datetime
import functools
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from attack import fuzz_files
from jaxconv import InputError
from jaxconv.data.safe_pickle import load_arrays


class Command:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_load_arrays_rejects_calls(tmp_path, protocol):
    created = tmp_path / "created"
    commands = [
        Command(os.system, f"touch {created}"),
        Command(eval, f"open({str(created)!r}, 'w')"),
        Command(getattr, os.path.join, "__globals__"),
        Command(functools.partial, os.mkdir, str(created)),
        Command(np.memmap, str(created), np.uint8, "w+", 0, (1,)),
        Command(pickle.loads, pickle.dumps(Command(os.mkdir, str(created)))),
    ]
    for command in commands:
        with pytest.raises(InputError, match=r"batch is rejected: it calls [\w.]+, which does not create a numeric"):
            load_arrays(pickle.dumps({"data": command}, protocol), "batch")
    assert not created.exists()
    with pytest.raises(InputError, match=r"is rejected: it calls datetime\.date"):
        load_arrays(pickle.dumps(datetime.date(2026, 1, 1), protocol), "batch")


def test_load_arrays_encodes_bytes_as_latin1_only():
    assert load_arrays(pickle.dumps(b"\x00\xff", protocol=2), "file") == b"\x00\xff"
    with pytest.raises(InputError, match=r"not a complete pickle of uint8 arrays \(UnpicklingError: encoding 'bz2'\)"):
        load_arrays(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.", "file")


def dtype(code, state=b""):
    """Opcodes of ``numpy.dtype(code, False, True)`` with ``state``."""
    return b"cnumpy\ndtype\n(X" + struct.pack("<I", len(code)) + code + b"\x89\x88tR" + state


def array(state):
    return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(" + state + b"tb"


def field(kind):
    """State of a record dtype with one field "f" of eight bytes of dtype ``kind``, which numpy trusts."""
    return b"(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00f\x85}X\x01\x00\x00\x00f" + kind + b"K\x00\x86sK\x08K\x01K\x00tb"


ADDRESSES = b"\x89C\x08AAAAAAAA"  # C order, then eight bytes, which as an object would be its address


OTHER_DTYPES = {
    "objects": dtype(b"O8"),
    "records of objects": dtype(b"V8", field(dtype(b"O8"))),
    "objects declared as bytes": dtype(b"u1", field(dtype(b"O8"))),
    "records": dtype(b"V8", field(dtype(b"u1"))),
    "numbers": dtype(b"u2"),
    "letters": dtype(b"U1"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", OTHER_DTYPES)
def test_load_arrays_other_dtypes_raise(protocol, case):
    """With an object dtype numpy would dereference the bytes as addresses."""
    raw = b"\x80" + bytes([protocol]) + array(b"K\x01K\x01\x85" + OTHER_DTYPES[case] + ADDRESSES) + b"."
    with pytest.raises(InputError, match=r"^batch is not a complete pickle .* dtype '(O8|V8|u2|U1)' is not uint8\)$"):
        load_arrays(raw, "batch")


def test_load_arrays_ignores_dtype_state():
    eight = b"K\x01K\x08\x85" + dtype(b"u1", field(b"N")) + ADDRESSES
    content = load_arrays(b"\x80\x04" + array(eight) + b".", "batch")
    assert content.dtype == np.uint8 and content.tolist() == [65] * 8
    content[0] = 1  # the array is writable


STATES = {
    "nine of eight bytes": b"K\x01K\x09\x85" + dtype(b"u1") + ADDRESSES,
    "a shape that is not a tuple": b"K\x01K\x08" + dtype(b"u1") + ADDRESSES,
    "no dtype": b"K\x01K\x08\x85N" + ADDRESSES,
    "a number for bytes": b"K\x01K\x08\x85" + dtype(b"u1") + b"\x89K\x08",
    "too short": b"K\x01K\x08\x85" + dtype(b"u1"),
}


@pytest.mark.parametrize("case", STATES)
def test_load_arrays_invalid_array_state_raises(case):
    with pytest.raises(InputError, match="batch is not a complete pickle of uint8 arrays"):
        load_arrays(b"\x80\x04" + array(STATES[case]) + b".", "batch")


def test_load_arrays_replaces_nested_arrays(rng):
    c, f = rng.integers(0, 256, (2, 3, 4), np.uint8), np.asfortranarray(rng.integers(0, 256, (3, 2), np.uint8))
    raw = pickle.dumps({"a": [c, (f, "x", {1: c})], "empty": np.empty((0, 3), np.uint8)}, 4)
    content = load_arrays(raw, "batch")
    (loaded_c, (loaded_f, x, inner)), empty = content["a"], content["empty"]
    np.testing.assert_array_equal(loaded_c, c)
    np.testing.assert_array_equal(loaded_f, f)
    assert x == "x" and inner[1] is loaded_c and empty.shape == (0, 3)


def test_load_arrays_of_shared_lists_is_linear_time():
    nested = []
    for _ in range(100):  # the innermost list occurs 2¹⁰⁰ times
        nested = [nested, nested]
    raw = pickle.dumps(nested)
    program = f"from jaxconv.data.safe_pickle import load_arrays; load_arrays({raw!r}, 'batch')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    nested[0] = nested
    with pytest.raises(InputError, match="RecursionError"):
        load_arrays(pickle.dumps(nested), "batch")


@pytest.mark.parametrize(
    "raw", [b"", b"not a pickle", b"\x80\x02}", pickle.dumps(np.zeros(9, np.uint8))[:-9], b"Pid\n."]
)
def test_load_arrays_damaged_pickle_raises(raw):
    with pytest.raises(InputError, match="batch is not a complete pickle of uint8 arrays"):
        load_arrays(raw, "batch")


EXHAUSTING = {
    "a memo of number 2³¹": "memo index 2147483647 is out of range",
    "a memo of number 2²⁷": "memo index 134217728 is out of range",
    "a memo of number −1": "memo index -1 is out of range|negative",
    "tuples a million deep as a key": "more opcodes or tuples than a batch of images has",
    "ten million opcodes": "more opcodes or tuples",
    "900 copies": "its arrays are more than 4 times as large as the pickle",
    "bytes of 2⁶⁰": "not a complete pickle",
    "a module of several lines": r"is rejected: it calls a\\nb\.c\\nd, which does not create",
}


@pytest.mark.parametrize("case", EXHAUSTING)
def test_load_arrays_limits_memory_and_stack(case):
    """Python's unpickler allocates 32 GB for a memo of ten bytes, and crashes when it hashes deeply nested tuples."""
    with pytest.raises(InputError, match=EXHAUSTING[case]) as caught:
        load_arrays(fuzz_files.HOSTILE["pickles"][case](), "batch")
    assert "\n" not in str(caught.value)
