"""Pickles that must not be run, nor believed: what they ask for is refused by its name."""

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
def test_a_pickle_cannot_run_anything(tmp_path, protocol):
    mark = tmp_path / "mark"
    evil = [
        Command(os.system, f"touch {mark}"),
        Command(eval, f"open({str(mark)!r}, 'w')"),
        Command(getattr, os.path.join, "__globals__"),
        Command(functools.partial, os.mkdir, str(mark)),
        Command(np.memmap, str(mark), np.uint8, "w+", 0, (1,)),
        Command(pickle.loads, pickle.dumps(Command(os.mkdir, str(mark)))),
    ]
    for command in evil:
        with pytest.raises(InputError, match=r"batch is refused: it asks for [\w.]+, which makes no array of numbers"):
            load_arrays(pickle.dumps({"data": command}, protocol), "batch")
    assert not mark.exists()
    with pytest.raises(InputError, match=r"is refused: it asks for datetime\.date"):
        load_arrays(pickle.dumps(datetime.date(2026, 1, 1), protocol), "batch")


def test_bytes_are_encoded_as_latin1_only():
    assert load_arrays(pickle.dumps(b"\x00\xff", protocol=2), "file") == b"\x00\xff"
    with pytest.raises(InputError, match=r"not a whole pickle of arrays of bytes \(UnpicklingError: encoding 'bz2'\)"):
        load_arrays(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.", "file")


def dtype(code, state=b""):
    """Opcodes: ``numpy.dtype(code, False, True)``, and its state set."""
    return b"cnumpy\ndtype\n(X" + struct.pack("<I", len(code)) + code + b"\x89\x88tR" + state


def array(state):
    return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(" + state + b"tb"


def field(kind):
    """The state of a dtype of one field "f" of eight bytes, of another dtype. numpy believes it."""
    return b"(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00f\x85}X\x01\x00\x00\x00f" + kind + b"K\x00\x86sK\x08K\x01K\x00tb"


ADDRESSES = b"\x89C\x08AAAAAAAA"  # not in Fortran's order; and the bytes, which would be the address of an object


OTHERS = {
    "objects": dtype(b"O8"),
    "records of objects": dtype(b"V8", field(dtype(b"O8"))),
    "objects said to be bytes": dtype(b"u1", field(dtype(b"O8"))),
    "records": dtype(b"V8", field(dtype(b"u1"))),
    "numbers": dtype(b"u2"),
    "letters": dtype(b"U1"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", OTHERS)
def test_a_pickle_cannot_make_an_array_of_anything_but_bytes(protocol, case):
    """Of objects, numpy would take the bytes for their addresses, and follow them."""
    raw = b"\x80" + bytes([protocol]) + array(b"K\x01K\x01\x85" + OTHERS[case] + ADDRESSES) + b"."
    with pytest.raises(InputError, match=r"^batch is not a whole pickle .* dtype '(O8|V8|u2|U1)' is not uint8\)$"):
        load_arrays(raw, "batch")


def test_what_a_pickle_says_of_the_state_of_bytes_is_not_heard():
    eight = b"K\x01K\x08\x85" + dtype(b"u1", field(b"N")) + ADDRESSES
    content = load_arrays(b"\x80\x04" + array(eight) + b".", "batch")
    assert content.dtype == np.uint8 and content.tolist() == [65] * 8
    content[0] = 1  # one's own, to be written to


STATES = {
    "nine of eight bytes": b"K\x01K\x09\x85" + dtype(b"u1") + ADDRESSES,
    "a shape that is no tuple": b"K\x01K\x08" + dtype(b"u1") + ADDRESSES,
    "no dtype": b"K\x01K\x08\x85N" + ADDRESSES,
    "a number for bytes": b"K\x01K\x08\x85" + dtype(b"u1") + b"\x89K\x08",
    "too short": b"K\x01K\x08\x85" + dtype(b"u1"),
}


@pytest.mark.parametrize("case", STATES)
def test_an_array_of_another_state_is_refused(case):
    with pytest.raises(InputError, match="batch is not a whole pickle of arrays of bytes"):
        load_arrays(b"\x80\x04" + array(STATES[case]) + b".", "batch")


def test_arrays_are_found_wherever_they_lie(rng):
    c, f = rng.integers(0, 256, (2, 3, 4), np.uint8), np.asfortranarray(rng.integers(0, 256, (3, 2), np.uint8))
    found = load_arrays(pickle.dumps({"a": [c, (f, "x", {1: c})], "none": np.empty((0, 3), np.uint8)}, 4), "batch")
    (first, (second, x, inner)), none = found["a"], found["none"]
    np.testing.assert_array_equal(first, c)
    np.testing.assert_array_equal(second, f)
    assert x == "x" and inner[1] is first and none.shape == (0, 3)


def test_a_small_pickle_cannot_take_years():
    nested = []
    for _ in range(100):  # so the innermost is in it 2¹⁰⁰ times
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
def test_a_broken_pickle_is_described(raw):
    with pytest.raises(InputError, match="batch is not a whole pickle of arrays"):
        load_arrays(raw, "batch")


GREEDY = {
    "a memo of number 2³¹": "a memo of number 2147483647",
    "a memo of number 2²⁷": "a memo of number 134217728",
    "a memo of number −1": "a memo of number -1|negative",
    "tuples a million deep as a key": "more opcodes or tuples than a batch of pictures has",
    "ten million opcodes": "more opcodes or tuples",
    "900 copies": "it makes more bytes than it has",
    "bytes of 2⁶⁰": "not a whole pickle",
    "a module of several lines": r"is refused: it asks for a\\nb\.c\\nd, which makes no array",
}


@pytest.mark.parametrize("case", GREEDY)
def test_a_pickle_cannot_exhaust_memory_or_the_stack(case):
    """Python's own unpickler takes 32 GB for a memo of ten bytes, and hashing deep tuples ends the process."""
    with pytest.raises(InputError, match=GREEDY[case]) as caught:
        load_arrays(fuzz_files.HOSTILE["pickles"][case](), "batch")
    assert "\n" not in str(caught.value)
