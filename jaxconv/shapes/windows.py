"""Sliding windows: output size and padding.

A window of size F, moved with stride S over N pixels with padding P on each side, has

    (N + 2P − F) / S + 1

positions. This is the output size of every convolution and pooling. The rest of this file follows from it: the amount
of padding of ``"SAME"``, and the cases in which the division leaves a remainder.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jaxconv.errors import InputError, unknown_name_error

IntOrInts = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]
PADDINGS = ("VALID", "SAME", "SAME_LOWER", "FULL", "CAUSAL")
MAX_SUGGESTED_STRIDE = 1000  # in an error message
MAX_PIXELS = 2**31 - 1  # of an image, so that indices fit in 32 bits


class _Window(NamedTuple):
    size: IntOrInts
    stride: IntOrInts
    padding: Padding
    dilation: IntOrInts


class Window(_Window):
    """Sliding window as passed by the user; an int applies to every dimension. Lists become tuples: it is hashable.

    >>> Window([3, 3], padding=[[1, 2], 0])
    Window(size=(3, 3), stride=1, padding=((1, 2), 0), dilation=1)
    """

    __slots__ = ()

    def __new__(
        cls, size: IntOrInts, stride: IntOrInts = 1, padding: Padding = "VALID", dilation: IntOrInts = 1
    ) -> "Window":
        return super().__new__(cls, *map(_as_tuple, (size, stride, padding, dilation)))

    @classmethod
    def for_pooling(cls, size: IntOrInts, stride: IntOrInts | None, padding: Padding, dilation: IntOrInts) -> "Window":
        """Create the window of a pooling, whose stride defaults to its size.

        >>> Window.for_pooling(2, None, "VALID", 1).stride
        2
        """
        return cls(size, size if stride is None else stride, padding, dilation)


def _as_tuple(value: Any) -> Any:
    """Convert lists and numpy arrays to tuples, recursively."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


class ResolvedWindow(NamedTuple):
    """Window for an image of known size, with all defaults resolved: one entry per spatial dimension."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    out_size: tuple[int, ...]


def dilated_size(window: int, dilation: int = 1) -> int:
    """Extent of a dilated window in pixels: ``dilation · (window − 1) + 1``.

    >>> dilated_size(3), dilated_size(3, dilation=2)
    (3, 5)
    """
    return dilation * (window - 1) + 1


def output_size(
    size: int,
    window: int,
    *,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    exact: bool = False,
    ceil_mode: bool = False,
) -> int:
    """Number of window positions in one dimension: ``(size + padding − dilated_size) / stride + 1``.

    The lectures have two policies for a remainder of the division. By default the quotient is rounded down ("pick the
    lower integer"), as in XLA, and the last pixels are unused. With ``exact=True`` a remainder is an error ("not
    possible"), whose message suggests values that fit.

    Args:
        size: pixels of the input, without padding.
        window: size of the window.
        stride: distance between windows.
        padding: any form that :func:`resolve_padding` takes.
        dilation: distance between the pixels of a window.
        exact: raise an error if the division leaves a remainder.
        ceil_mode: round up; the last window may exceed the input, but must start inside it.

    Raises:
        InputError: if the window is larger than the padded input, or ``exact=True`` and the division has a remainder.

    Lecture rows 000-07, 001-09, 002-10.

    >>> output_size(227, 11, stride=4)                     # AlexNet's first layer
    55
    >>> output_size(7, 3), output_size(7, 3, stride=2), output_size(7, 3, stride=3)
    (5, 3, 2)
    >>> output_size(7, 3, stride=3, padding=1, exact=True)
    3
    >>> output_size(7, 3, stride=3, exact=True)
    Traceback (most recent call last):
    jaxconv.errors.InputError: (7 + 0 - 3) / 3 + 1 = 2.33 window positions is not an integer; \
padding 1 or 4 on both sides would fit, or stride 1, 2 or 4
    """
    for name, value in {"window": window, "stride": stride, "dilation": dilation}.items():
        canonicalize_sizes(value, 1, name)
    low, high = resolve_padding(padding, size, window, stride, dilation)
    margin = size + low + high - dilated_size(window, dilation)
    if margin < 0 and not (ceil_mode and margin > -stride and not exact):
        raise InputError(
            f"the window spans {dilated_size(window, dilation)} pixels but the padded input has only "
            f"{size + low + high} "
            f"({size} + {low} + {high} of padding): pad more, or take a smaller window"
        )
    remainder = margin % stride
    if exact and remainder:
        raise InputError(_suggest_sizes(size, window, stride, low + high, dilation))
    num_positions = margin // stride + 1
    # Rounding up adds one window, unless it would start after the last pixel of the input.
    return num_positions + 1 if ceil_mode and remainder and num_positions * stride < size + low else num_positions


def _suggest_sizes(size: int, window: int, stride: int, pad_total: int, dilation: int) -> str:
    extent = dilated_size(window, dilation)
    margin = size + pad_total - extent
    # The total padding must be congruent to this number modulo stride, and at least the minimum.
    remainder = (extent - size) % stride
    minimum = max(extent - size, 0)
    total = minimum + (remainder - minimum) % stride
    # For equal padding p on both sides, solve 2p ≡ remainder: p is unique modulo stride if that is odd, else modulo
    # stride / 2, and exists only if the remainder is even.
    period = stride if stride % 2 else stride // 2
    half = remainder * (stride + 1) // 2 if stride % 2 else remainder // 2
    symmetric = -(-minimum // 2)
    symmetric += (half - symmetric) % period
    pads = f"padding {(total // 2, total - total // 2)}"
    if stride % 2 == 1 or remainder % 2 == 0:
        candidates = [p for p in (symmetric, symmetric + period) if p < extent + stride]
        pads = f"padding {_join_with_or(candidates)} on both sides"
    strides = _join_with_or([s for s in range(1, min(margin, MAX_SUGGESTED_STRIDE) + 1) if margin % s == 0])
    return (
        f"({size} + {pad_total} - {extent}) / {stride} + 1 = {margin / stride + 1:.2f} window positions is not an "
        f"integer; {pads} would fit, or stride {strides}"
    )


def _join_with_or(values: Sequence[int]) -> str:
    *head, last = map(str, values)
    return f"{', '.join(head)} or {last}" if head else last


def resolve_padding(padding: Padding, size: int, window: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the padding ``(low, high)`` before and after the input, in one dimension.

    Args:
        padding: ``"VALID"``: none. ``"SAME"``: enough for ``ceil(size / stride)`` outputs, an odd pixel at the end
            (``"SAME_LOWER"``: at the start). ``"FULL"``: every position that overlaps the input by at least one pixel.
            ``"CAUSAL"``: all before the input, so that no output depends on later inputs. An int: the same on both
            sides. A pair: ``(low, high)``.
        size, window, stride, dilation: input size and window of this dimension.

    With stride 2 ``"SAME"`` is *not* ``padding=1``: for 28 pixels and a window of 3 it adds 0 pixels before and 1
    after, where PyTorch networks have 1 on each side.

    >>> resolve_padding("SAME", size=28, window=3, stride=2)
    (0, 1)
    >>> resolve_padding("SAME", 28, 4), resolve_padding("SAME_LOWER", 28, 4)
    ((1, 2), (2, 1))
    >>> resolve_padding("FULL", 28, 3), resolve_padding("CAUSAL", 28, 3, dilation=2), resolve_padding(1, 28, 3)
    ((2, 2), (4, 0), (1, 1))
    """
    if isinstance(padding, str):
        name, extent = padding.upper(), dilated_size(window, dilation)
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        pads = {
            "VALID": (0, 0),
            "SAME": (total // 2, total - total // 2),
            "SAME_LOWER": (total - total // 2, total // 2),
            "FULL": (extent - 1, extent - 1),
            "CAUSAL": (extent - 1, 0),
        }
        if name not in pads:
            raise unknown_name_error("padding", name, PADDINGS)
        return pads[name]
    low, high = (int(padding), int(padding)) if is_int(padding) else _validate_pair(padding)
    if low < 0 or high < 0:
        raise InputError(f"padding {padding!r} is negative: crop the input instead, x[:, 1:-1]")
    return low, high


def _validate_pair(padding: object) -> tuple[int, int]:
    if isinstance(padding, Sequence) and len(padding) == 2 and all(map(is_int, padding)):
        return int(padding[0]), int(padding[1])
    raise InputError(
        f"padding must be one of {', '.join(PADDINGS)}, an int, one int per dimension, or one pair (low, high) per "
        f"dimension, got {padding!r}"
    )


def is_int(value: object) -> TypeGuard[int]:
    """Return True for an integer of Python or numpy, and False for a bool.

    >>> is_int(np.int64(3)), is_int(True), is_int(3.0)
    (True, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def canonicalize_sizes(value: IntOrInts, ndim: int, name: str, *, minimum: int = 1) -> tuple[int, ...]:
    """Validate sizes and return one per dimension; an int applies to every dimension.

    >>> canonicalize_sizes(3, 2, "stride"), canonicalize_sizes((2, 1), 2, "stride")
    ((3, 3), (2, 1))
    """
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * ndim
    ints = tuple(int(v) for v in values if is_int(v) and v >= minimum)
    if len(ints) != len(values) or len(ints) != ndim:
        raise InputError(f"{name} {value!r}: give an int of at least {minimum}, or {ndim} of them, one per dimension")
    if ints and max(ints) > MAX_PIXELS:
        raise InputError(f"{name} {value!r} is too large: give at most 2³¹ − 1, the maximum number of pixels")
    return ints


def resolve_window(window: Window, size: Sequence[int], *, ceil_mode: bool = False) -> ResolvedWindow:
    """Resolve a window for an input of known size: canonicalize every option and validate every size.

    Args:
        window: window as passed by the user.
        size: spatial size of the input, one entry per dimension: (height, width) for an image.
        ceil_mode: see :func:`output_size`.

    Raises:
        InputError: if an option has a wrong type or value, or the window does not fit; the message names the option
            and the dimension.

    >>> resolve_window(Window(3, stride=2, padding="SAME"), (28, 28)).out_size
    (14, 14)
    >>> resolve_window(Window((3, 2), padding=((1, 2), (0, 0))), (9, 8)).padding
    ((1, 2), (0, 0))
    """
    ndim = len(size)
    window_size = canonicalize_sizes(window.size, ndim, "window")
    stride = canonicalize_sizes(window.stride, ndim, "stride")
    dilation = canonicalize_sizes(window.dilation, ndim, "dilation")
    pads, out = [], []
    for axis, padding in enumerate(canonicalize_padding(window.padding, ndim)):
        n, f, s, d = size[axis], window_size[axis], stride[axis], dilation[axis]
        pads.append(resolve_padding(padding, n, f, s, d))
        try:
            out.append(output_size(n, f, stride=s, padding=pads[axis], dilation=d, ceil_mode=ceil_mode))
        except InputError as error:
            raise InputError(f"window {window_size} on an input of {tuple(size)}, dimension {axis}: {error}") from None
    countable("the padded input", [n + low + high for n, (low, high) in zip(size, pads, strict=True)])
    return ResolvedWindow(window_size, stride, tuple(pads), dilation, tuple(out))


def countable(what: str, size: Sequence[int]) -> None:
    """Raise InputError for an image of more than :data:`MAX_PIXELS` pixels.

    >>> countable("the output", (28, 28))
    """
    if math.prod(size) > MAX_PIXELS:
        raise InputError(
            f"{what} would have {' × '.join(map(str, size))} pixels, and at most 2³¹ − 1 are supported: "
            "reduce padding, stride or dilation"
        )


def canonicalize_padding(padding: Padding, ndim: int) -> Sequence[Padding]:
    """Return one padding per dimension, each in a form that :func:`resolve_padding` takes.

    >>> canonicalize_padding("SAME", 2), canonicalize_padding(((1, 2), 0), 2)
    (['SAME', 'SAME'], ((1, 2), 0))
    """
    if isinstance(padding, str) and padding.upper() == "CAUSAL" and ndim != 1:
        raise InputError(f"padding 'CAUSAL' is for one dimension, time; the input has {ndim}: give (low, high) pairs")
    if isinstance(padding, str) or not isinstance(padding, Sequence):
        return [padding] * ndim
    if len(padding) != ndim:
        raise InputError(f"padding {padding!r} has {len(padding)} entries for {ndim} dimensions: give one each")
    return padding
