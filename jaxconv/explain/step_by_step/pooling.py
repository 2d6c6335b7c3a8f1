"""Pooling: the largest, the mean or the norm of what a window sees.

Sliding, global and adaptive pooling differ only in which pixels that is. The gradient of a window goes to the pixel
that won (max), to all alike (mean), or to each by its part in the norm.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxconv.explain.step_by_step.terms import (
    Arithmetic,
    Group,
    Number,
    Query,
    Term,
    add,
    factor,
    plain,
    product,
    read,
    signed,
    summed,
)
from jaxconv.shapes import IntOrInts, Padding, Window, canonicalize_sizes, resolve_window, tap_indices


class Views(NamedTuple):
    """What each window sees: in each dimension and at each place its pixels, where −1 is a zero that counts."""

    axes: Sequence[Sequence[Sequence[int]]]
    whole: bool = False  # one window, whose output has no spatial axes

    def output(self, n: int, place: Sequence[int], c: int) -> tuple[int, ...]:
        return (n, c) if self.whole else (n, *place, c)

    def numbers(self, x: np.ndarray, n: int, place: Sequence[int], c: int) -> list[Number]:
        """Everything under a window, in reading order."""
        rows = [axis[p] for axis, p in zip(self.axes, place, strict=True)]
        return [read("x", x, (n, *pixel, c)) for pixel in itertools.product(*rows)]

    def holding(self, pixel: Sequence[int]) -> Iterable[tuple[int, ...]]:
        """The places whose window sees a pixel."""
        return itertools.product(
            *([p for p, seen in enumerate(axis) if q in seen] for axis, q in zip(self.axes, pixel, strict=True))
        )

    def over(self, asked: Query, x: np.ndarray) -> list[tuple[Number, list[Number]]]:
        """For a gradient: dy of every window that sees the pixel asked for, and everything under that window."""
        n, *pixel, c = asked.at
        return [
            (read("dy", asked.dy, self.output(n, place, c)), self.numbers(x, n, place, c))
            for place in self.holding(pixel)
        ]

    def under(self, asked: Query, x: np.ndarray) -> list[Number]:
        """For a value: everything under its window."""
        n, *place, c = asked.at
        return self.numbers(x, n, (0,) * len(self.axes) if self.whole else place, c)


def max_pool(
    asked: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> Arithmetic:
    return _largest(asked, x, _sliding(x, window_shape, stride, padding, dilation, ceil_mode), ties)


def avg_pool(
    asked: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Arithmetic:
    return _mean(asked, x, _sliding(x, window_shape, stride, padding, dilation, ceil_mode, count_include_pad))


def lp_pool(
    asked: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    p: float = 2.0,
) -> Arithmetic:
    return _norm(asked, x, _sliding(x, window_shape, stride, padding, dilation, ceil_mode), p)


def global_max_pool(asked: Query, x: np.ndarray, *, ties: str = "first") -> Arithmetic:
    return _largest(asked, x, _global(x), ties)


def global_avg_pool(asked: Query, x: np.ndarray) -> Arithmetic:
    return _mean(asked, x, _global(x))


def adaptive_max_pool(asked: Query, x: np.ndarray, output_size: IntOrInts, *, ties: str = "first") -> Arithmetic:
    return _largest(asked, x, _adaptive(x, output_size), ties)


def adaptive_avg_pool(asked: Query, x: np.ndarray, output_size: IntOrInts) -> Arithmetic:
    return _mean(asked, x, _adaptive(x, output_size))


def _sliding(
    x: np.ndarray,
    window: IntOrInts,
    stride: IntOrInts | None,
    padding: Padding,
    dilation: IntOrInts,
    ceil_mode: bool,
    count_pad: bool = False,
) -> Views:
    size = x.shape[1:-1]
    slide = resolve_window(Window.for_pooling(window, stride, padding, dilation), size, ceil_mode=ceil_mode)
    axes = []
    for pixels, n, (low, high) in zip(tap_indices(slide), size, slide.padding, strict=True):
        # What hangs over the end of the padding never counts.
        first, end = (-low, n + high) if count_pad else (0, n)
        axes.append([[int(q) if 0 <= q < n else -1 for q in row if first <= q < end] for row in pixels])
    return Views(axes)


def _global(x: np.ndarray) -> Views:
    return Views([[range(n)] for n in x.shape[1:-1]], whole=True)


def _adaptive(x: np.ndarray, out: IntOrInts) -> Views:
    """Window q of ``out`` sees pixels ``⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1``."""
    size = x.shape[1:-1]
    places = zip(size, canonicalize_sizes(out, len(size), "out"), strict=True)
    return Views([[range(q * n // o, -(-(q + 1) * n // o)) for q in range(o)] for n, o in places])


def _largest(asked: Query, x: np.ndarray, views: Views, ties: str) -> Arithmetic:
    if asked.of == "value":
        numbers = views.under(asked, x)
        largest = float(np.max([number.value for number in numbers]))
        line = f"{_list('max', numbers)} = {plain(largest)}"
        return asked.answer([Group("", tuple(map(product, numbers)), largest, line)])
    lines = []
    for dy, numbers in views.over(asked, x):
        largest = np.max([number.value for number in numbers])
        best = [number for number in numbers if number.value == largest or math.isnan(number.value)]
        winners = best[:1] if ties == "first" else best
        share = dy.value / len(winners) if asked.at in [number.at for number in winners] else 0.0
        names = " and ".join(number.where for number in winners)
        told = f"{dy.where} = {plain(dy.value)} goes to {names}, the largest"
        if len(best) > 1:
            told += " (first of ties)" if ties == "first" else f", {plain(dy.value / len(best))} to each"
        term = Term((dy,), share, plain(share))
        lines.append(Group(dy.where, (term,), share, f"{_list('max', numbers)}: {told}"))
    shares = [plain(line.subtotal) for line in lines]
    total = add(line.subtotal for line in lines)
    return asked.formula(f"total: {signed(shares) or 'nothing meets it'}", total, lines)


def _mean(asked: Query, x: np.ndarray, views: Views) -> Arithmetic:
    if asked.of == "value":
        numbers = views.under(asked, x)
        terms = tuple(map(product, numbers))
        mean = add(term.value for term in terms) / len(terms)
        line = f"({signed([term.text for term in terms])}) / {len(terms)} = {plain(mean)}"
        return asked.answer([Group("", terms, mean, line)])
    terms = tuple(
        Term((dy,), dy.value / len(numbers), f"{plain(dy.value)} / {len(numbers)}")
        for dy, numbers in views.over(asked, x)
    )
    return asked.answer([summed("", terms)] if terms else [])


def _norm(asked: Query, x: np.ndarray, views: Views, p: float) -> Arithmetic:
    power = plain(p)
    if asked.of == "value":
        numbers = views.under(asked, x)
        with np.errstate(over="ignore"):  # a power may be infinite where the norm is not
            powers = np.abs([number.value for number in numbers]) ** p
        terms = tuple(
            Term((number,), float(value), f"|{plain(number.value)}|^{power}")
            for number, value in zip(numbers, powers, strict=True)
        )
        norm = _length(numbers, p)
        line = f"({signed([term.text for term in terms])})^(1/{power}) = {plain(norm)}"
        return asked.answer([Group("", terms, norm, line)])
    a = float(x[asked.at])
    parts = []
    for dy, numbers in views.over(asked, x):
        norm = _length(numbers, p)
        # At 0 an absolute value has no slope, nor has the norm of a window of zeros: the op gives them 0.
        slope = math.copysign((abs(a) / norm) ** (p - 1), a) if a else 0.0
        written = f"{'(-1)·' if a < 0 else ''}(|{plain(a)}| / {plain(norm)})^{plain(p - 1)}" if a else "0"
        parts.append(Term((dy,), dy.value * slope, f"{factor(dy.value)}·{written}"))
    return asked.answer([summed("", parts)] if parts else [])


def _length(numbers: Sequence[Number], p: float) -> float:
    """The p-norm, in units of the largest, so that no power is too large or too small to hold."""
    sizes = [abs(number.value) for number in numbers]
    unit = max(sizes) or 1.0
    return unit * add((size / unit) ** p for size in sizes) ** (1 / p)


def _list(name: str, numbers: Sequence[Number]) -> str:
    return f"{name}({', '.join(plain(number.value) for number in numbers)})"
