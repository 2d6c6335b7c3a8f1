"""Where a sliding window stands, and so how large the output is.

A window of size F slides over N pixels, P of padding on each side, S pixels a step. It finds

    (N + 2P − F) / S + 1

places to stand, and that is the size of the output of every convolution and every pooling. Everything in this
file is that sentence, applied: the padding that ``"SAME"`` stands for, and what to do when the division leaves a rest.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jaxconv.errors import InputError, unknown_name_error

IntOrInts = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]
PADDINGS = ("VALID", "SAME", "SAME_LOWER", "FULL", "CAUSAL")
MOST_STRIDE = 1000  # that an error proposes
MOST_PIXELS = 2**31 - 1  # of an image: more cannot be counted in 32 bits


class _Window(NamedTuple):
    size: IntOrInts
    stride: IntOrInts
    padding: Padding
    dilation: IntOrInts


class Window(_Window):
    """A sliding window as a user writes it: an int stands for every dimension. Lists become tuples, so it has a hash.

    >>> Window([3, 3], padding=[[1, 2], 0])
    Window(size=(3, 3), stride=1, padding=((1, 2), 0), dilation=1)
    """

    __slots__ = ()

    def __new__(
        cls, size: IntOrInts, stride: IntOrInts = 1, padding: Padding = "VALID", dilation: IntOrInts = 1
    ) -> "Window":
        return super().__new__(cls, *map(_frozen, (size, stride, padding, dilation)))

    @classmethod
    def for_pooling(cls, size: IntOrInts, stride: IntOrInts | None, padding: Padding, dilation: IntOrInts) -> "Window":
        """Pooling windows lie side by side unless a stride is given.

        >>> Window.for_pooling(2, None, "VALID", 1).stride
        2
        """
        return cls(size, size if stride is None else stride, padding, dilation)


def _frozen(value: Any) -> Any:
    """Lists and numpy's arrays as tuples, and those within them."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


class ResolvedWindow(NamedTuple):
    """A window laid on an image of known size: one entry a spatial dimension, and nothing left to decide."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    out_size: tuple[int, ...]


def dilated_size(window: int, dilation: int = 1) -> int:
    """How many pixels a window reaches over: the first tap, the last, and the gaps that dilation leaves.

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
    """The number of places where a window can stand, in one dimension: ``(size + padding − span) / stride + 1``.

    The lectures have two policies for a division that leaves a rest, and both are here. By default it is rounded
    down ("pick the lower integer"), which is what XLA does: the last pixels are not seen. With ``exact=True`` it
    is refused ("not possible"), and the error lists what would fit.

    Args:
        size: pixels of the input, without padding.
        window: taps of the window.
        stride: pixels from one place to the next.
        padding: any form that :func:`resolve_padding` takes.
        dilation: pixels from one tap to the next.
        exact: refuse a division that leaves a rest.
        ceil_mode: round up instead: a last window may hang over the end, but must begin before it.

    Raises:
        InputError: the window is larger than the padded input, or ``exact`` and it does not fit.

    Lecture rows 000-07, 001-09, 002-10.

    >>> output_size(227, 11, stride=4)                     # AlexNet's first layer
    55
    >>> output_size(7, 3), output_size(7, 3, stride=2), output_size(7, 3, stride=3)
    (5, 3, 2)
    >>> output_size(7, 3, stride=3, padding=1, exact=True)
    3
    >>> output_size(7, 3, stride=3, exact=True)
    Traceback (most recent call last):
    jaxconv.errors.InputError: (7 + 0 - 3) / 3 + 1 = 2.33 places for the window is not a whole number; \
padding 1 or 4 on both sides would fit, or stride 1, 2 or 4
    """
    for name, value in {"window": window, "stride": stride, "dilation": dilation}.items():
        canonicalize_sizes(value, 1, name)
    low, high = resolve_padding(padding, size, window, stride, dilation)
    room = size + low + high - dilated_size(window, dilation)
    if room < 0 and not (ceil_mode and room > -stride and not exact):
        raise InputError(
            f"the window spans {dilated_size(window, dilation)} pixels but the padded input has only "
            f"{size + low + high} "
            f"({size} + {low} + {high} of padding): pad more, or take a smaller window"
        )
    rest = room % stride
    if exact and rest:
        raise InputError(_what_would_fit(size, window, stride, low + high, dilation))
    places = room // stride + 1
    # Rounding up admits one more window, unless it would begin beyond the last real pixel.
    return places + 1 if ceil_mode and rest and places * stride < size + low else places


def _what_would_fit(size: int, window: int, stride: int, padded: int, dilation: int) -> str:
    reach = dilated_size(window, dilation)
    room = size + padded - reach
    rest = (reach - size) % stride  # of all pixels that are added, on both sides together
    least = max(reach - size, 0)
    total = least + (rest - least) % stride
    # Of the same number on both sides, 2p leaves this rest: once in a stride if that is odd, or in half a stride.
    period = stride if stride % 2 else stride // 2
    half = rest * (stride + 1) // 2 if stride % 2 else rest // 2
    both = -(-least // 2)
    both += (half - both) % period
    even = stride % 2 == 1 or rest % 2 == 0
    pads = f"padding {_listed([p for p in (both, both + period) if p < reach + stride])} on both sides" if even else ""
    one_sided = (total // 2, total - total // 2)
    strides = _listed([s for s in range(1, min(room, MOST_STRIDE) + 1) if room % s == 0])
    return (
        f"({size} + {padded} - {reach}) / {stride} + 1 = {room / stride + 1:.2f} places for the window is not a whole "
        f"number; {pads or f'padding {one_sided}'} would fit, or stride {strides}"
    )


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


def resolve_padding(padding: Padding, size: int, window: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """The pixels that a padding adds before and after an input, in one dimension.

    Args:
        padding: ``"VALID"`` none; ``"SAME"`` enough for ``ceil(size / stride)`` outputs, the odd pixel at the end
            (``"SAME_LOWER"``: at the start); ``"FULL"`` every overlap, down to a single pixel; ``"CAUSAL"`` all of
            it before, so that no output sees what comes after it; an int, the same on both sides; or the pair
            ``(low, high)`` itself.
        size, window, stride, dilation: of this dimension.

    With stride 2 ``"SAME"`` is *not* ``padding=1``: for 28 pixels and a window of 3 it adds nothing before and one
    after, where PyTorch networks have one on each side.

    >>> resolve_padding("SAME", size=28, window=3, stride=2)
    (0, 1)
    >>> resolve_padding("SAME", 28, 4), resolve_padding("SAME_LOWER", 28, 4)
    ((1, 2), (2, 1))
    >>> resolve_padding("FULL", 28, 3), resolve_padding("CAUSAL", 28, 3, dilation=2), resolve_padding(1, 28, 3)
    ((2, 2), (4, 0), (1, 1))
    """
    if isinstance(padding, str):
        name, reach = padding.upper(), dilated_size(window, dilation)
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        pads = {
            "VALID": (0, 0),
            "SAME": (total // 2, total - total // 2),
            "SAME_LOWER": (total - total // 2, total // 2),
            "FULL": (reach - 1, reach - 1),
            "CAUSAL": (reach - 1, 0),
        }
        if name not in pads:
            raise unknown_name_error("padding", name, PADDINGS)
        return pads[name]
    low, high = (int(padding), int(padding)) if is_int(padding) else _pair(padding)
    if low < 0 or high < 0:
        raise InputError(f"padding {padding!r} is negative: cut the input instead, x[:, 1:-1]")
    return low, high


def _pair(padding: object) -> tuple[int, int]:
    if isinstance(padding, Sequence) and len(padding) == 2 and all(map(is_int, padding)):
        return int(padding[0]), int(padding[1])
    raise InputError(
        f"padding {padding!r} is none of the forms: {', '.join(PADDINGS)}, an int, an int a dimension, "
        "or a pair (low, high) a dimension"
    )


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, Python's or numpy's, and not a bool.

    >>> is_int(np.int64(3)), is_int(True), is_int(3.0)
    (True, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def canonicalize_sizes(value: IntOrInts, ndim: int, name: str, *, minimum: int = 1) -> tuple[int, ...]:
    """An int for every dimension, or one for each; checked.

    >>> canonicalize_sizes(3, 2, "stride"), canonicalize_sizes((2, 1), 2, "stride")
    ((3, 3), (2, 1))
    """
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * ndim
    ints = tuple(int(v) for v in values if is_int(v) and v >= minimum)
    if len(ints) != len(values) or len(ints) != ndim:
        raise InputError(f"{name} {value!r}: give an int of at least {minimum}, or {ndim} of them, one a dimension")
    if ints and max(ints) > MOST_PIXELS:
        raise InputError(f"{name} {value!r} is too large: give at most 2³¹ − 1, the pixels that an image can have")
    return ints


def resolve_window(window: Window, size: Sequence[int], *, ceil_mode: bool = False) -> ResolvedWindow:
    """Lay a window on an image: every form canonicalised once, every size checked.

    Args:
        window: as the user wrote it.
        size: the spatial size of the input, one entry a dimension: (height, width) for an image.
        ceil_mode: see :func:`output_size`.

    Raises:
        InputError: a value of the wrong kind, or no place for the window; it names the value and the dimension.

    >>> resolve_window(Window(3, stride=2, padding="SAME"), (28, 28)).out_size
    (14, 14)
    >>> resolve_window(Window((3, 2), padding=((1, 2), (0, 0))), (9, 8)).padding
    ((1, 2), (0, 0))
    """
    ndim = len(size)
    taps = canonicalize_sizes(window.size, ndim, "window")
    stride = canonicalize_sizes(window.stride, ndim, "stride")
    dilation = canonicalize_sizes(window.dilation, ndim, "dilation")
    pads, out = [], []
    for axis, padding in enumerate(canonicalize_padding(window.padding, ndim)):
        n, f, s, d = size[axis], taps[axis], stride[axis], dilation[axis]
        pads.append(resolve_padding(padding, n, f, s, d))
        try:
            out.append(output_size(n, f, stride=s, padding=pads[axis], dilation=d, ceil_mode=ceil_mode))
        except InputError as error:
            raise InputError(f"window {taps} on an input of {tuple(size)}, dimension {axis}: {error}") from None
    countable("the padded input", [n + low + high for n, (low, high) in zip(size, pads, strict=True)])
    return ResolvedWindow(taps, stride, tuple(pads), dilation, tuple(out))


def countable(what: str, size: Sequence[int]) -> None:
    """Refuse an image of more than :data:`MOST_PIXELS`.

    >>> countable("the output", (28, 28))
    """
    if math.prod(size) > MOST_PIXELS:
        raise InputError(
            f"{what} would have {' × '.join(map(str, size))} pixels, and at most 2³¹ − 1 can be: "
            "make it smaller, by less padding, stride or dilation, say"
        )


def canonicalize_padding(padding: Padding, ndim: int) -> Sequence[Padding]:
    """A padding in the form that :func:`resolve_padding` takes, one a dimension.

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
