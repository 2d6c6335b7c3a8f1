"""Convolution, transposed convolution and dense: three parts of one sum.

    E = Σ dy[n, p, o] · x[n, q, c] · kernel[u, c, o]        over every tap u that joins a pixel q of x to a place p of y

``y[n, p, o]`` is what ``dy[n, p, o]`` is multiplied with in it, ``d_kernel[u, c, o]`` is what ``kernel[u, c, o]`` is
multiplied with, and ``dx[n, q, c]`` what ``x[n, q, c]`` is. So to ask for one number is to hold its index still and to
multiply the other two arrays wherever they meet. The ops differ in which pixels a tap joins, and in nothing else.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxconv.explain.step_by_step.terms import Arithmetic, Query, product, read, summed
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.ops.convolution.transposed import resolve_transposed_window
from jaxconv.shapes import IntOrInts, Padding, Window, resolve_window, tap_indices


class Joint(NamedTuple):
    """In one dimension: the tap that joins a pixel of x to a place of y. −1 is outside the array."""

    x: int
    tap: int
    y: int
    padding: bool = False


class Meeting(NamedTuple):
    """In all dimensions."""

    x: tuple[int, ...]
    tap: tuple[int, ...]
    y: tuple[int, ...]
    padding: bool


def conv(
    asked: Query,
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Arithmetic:
    """Tap u of place p meets pixel ``p·stride + u·dilation − low``."""
    window = resolve_window(Window(kernel.shape[:-2], stride, padding, dilation), x.shape[1:-1])
    # Which pixel stands at each place of the padded image: itself, one that the padding repeats, or none.
    fill: dict[str, Any] = {"mode": PADDING_MODES[padding_mode]}
    if padding_mode == "zeros":
        fill["constant_values"] = -1
    axes = []
    for pixels, n, pads, taps in zip(tap_indices(window), x.shape[1:-1], window.padding, window.size, strict=True):
        stands = np.pad(np.arange(n), pads, **fill)
        axes.append(
            [
                Joint(int(stands[q + pads[0]]), taps - 1 - u if flip_kernel else u, p, padding=not 0 <= q < n)
                for (p, u), q in np.ndenumerate(pixels)
            ]
        )
    return _sum(asked, axes, x, kernel, bias, groups)


def conv_transpose(
    asked: Query,
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    output_padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Arithmetic:
    """Tap u of pixel p lands on ``p·stride + u·dilation − low`` of the output, or beside it and is cut off."""
    stamp = resolve_transposed_window(kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation)
    axes = []
    for n, taps, s, d, low, out in zip(x.shape[1:-1], *stamp, strict=True):
        lands = ((p, u, p * s + u * d - low) for p in range(n) for u in range(taps))
        axes.append([Joint(p, u, y if 0 <= y < out else -1) for p, u, y in lands])
    return _sum(asked, axes, x, kernel, bias, groups)


def dense(asked: Query, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> Arithmetic:
    """A convolution without dimensions: every input meets every output once."""
    return _sum(asked, [], x, kernel, bias, groups=1)


def flatten(asked: Query, x: np.ndarray) -> Arithmetic:
    """The same number at another index."""
    if asked.of == "value":
        n, i = asked.at
        number = read("x", x, (n, *map(int, np.unravel_index(i, x.shape[1:]))))
    else:
        n, *rest = asked.at
        number = read("dy", asked.dy, (n, int(np.ravel_multi_index(rest, x.shape[1:]))))
    return asked.formula(number.where, number.value)


def _sum(
    asked: Query,
    axes: Sequence[Sequence[Joint]],
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
) -> Arithmetic:
    """The part of E that belongs to the number asked for, a line for each channel, example or filter."""
    *_, channels, features = kernel.shape
    share = features // groups  # filters to a group, each of which sees so many channels
    dy = asked.dy
    if asked.of == "value":
        n, *place, o = asked.at
        first = o // share * channels
        met = _meetings(axes, y=place)
        lines = {
            f"channel {first + c}": [
                product(
                    read("x", x, (n, *m.x, first + c), padding=m.padding),
                    read("kernel", kernel, (*m.tap, c, o)),
                )
                for m in met
            ]
            for c in range(channels)
        }
    elif asked.of == "kernel":
        *tap, c, o = asked.at
        first = o // share * channels
        met = _meetings(axes, tap=tap)
        lines = {
            f"example {n}": [
                product(read("x", x, (n, *m.x, first + c), padding=m.padding), read("dy", dy, (n, *m.y, o)))
                for m in met
            ]
            for n in range(len(x))
        }
    elif asked.of == "x":
        n, *pixel, c = asked.at
        group, c = divmod(c, channels)
        met = _meetings(axes, x=pixel)
        lines = {
            f"filter {o}": [product(read("kernel", kernel, (*m.tap, c, o)), read("dy", dy, (n, *m.y, o))) for m in met]
            for o in range(group * share, (group + 1) * share)
        }
    else:
        (o,) = asked.at
        places = list(np.ndindex(dy.shape[1:-1]))
        lines = {f"example {n}": [product(read("dy", dy, (n, *p, o))) for p in places] for n in range(len(x))}
    if not axes:  # dense: one term a line would be a column, not a sum
        lines = {"": list(itertools.chain(*lines.values()))}
    added = [summed(label, terms) for label, terms in lines.items() if terms]
    offset = float(bias[asked.at[-1]]) if bias is not None and asked.of == "value" else None
    return asked.answer(added, bias=offset)


def _meetings(axes: Sequence[Sequence[Joint]], **held: Sequence[int]) -> list[Meeting]:
    """All meetings at a pixel ``x``, of a ``tap`` or at a place ``y``, in reading order."""
    ((side, index),) = held.items()
    still = [[j for j in axis if getattr(j, side) == i] for axis, i in zip(axes, index, strict=True)]
    return [
        Meeting(
            x=tuple(j.x for j in joints),
            tap=tuple(j.tap for j in joints),
            y=tuple(j.y for j in joints),
            padding=any(j.padding for j in joints),
        )
        for joints in itertools.product(*still)
    ]
