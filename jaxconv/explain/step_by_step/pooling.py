"""Pooling: the maximum, mean or p-norm over a window.

Sliding, global and adaptive pooling differ only in the pixels of the window. The gradient of a window is routed to the
maximum (max), divided equally (mean), or distributed in proportion to the slope of the norm.
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
    exact_sum,
    fmt,
    fmt_factor,
    join_signed,
    product,
    read,
    sum_terms,
)
from jaxconv.shapes import IntOrInts, Padding, Window, canonicalize_sizes, resolve_window, tap_indices


class PoolWindows(NamedTuple):
    """Pixels of each window, per axis and output position; −1 is a zero of the padding that is counted."""

    axes: Sequence[Sequence[Sequence[int]]]
    is_global: bool = False  # a single window; the output has no spatial axes

    def output_index(self, n: int, position: Sequence[int], c: int) -> tuple[int, ...]:
        return (n, c) if self.is_global else (n, *position, c)

    def window_numbers(self, x: np.ndarray, n: int, position: Sequence[int], c: int) -> list[Number]:
        """Return the numbers in the window of an output position, in reading order."""
        pixels_per_axis = [axis[p] for axis, p in zip(self.axes, position, strict=True)]
        return [read("x", x, (n, *pixel, c)) for pixel in itertools.product(*pixels_per_axis)]

    def positions_with(self, pixel: Sequence[int]) -> Iterable[tuple[int, ...]]:
        """Iterate over the output positions with a window that contains a pixel."""
        return itertools.product(
            *([p for p, pixels in enumerate(axis) if q in pixels] for axis, q in zip(self.axes, pixel, strict=True))
        )

    def gradient_windows(self, query: Query, x: np.ndarray) -> list[tuple[Number, list[Number]]]:
        """Return dy and the numbers of each window that contains the pixel of the query."""
        n, *pixel, c = query.indices
        return [
            (read("dy", query.dy, self.output_index(n, position, c)), self.window_numbers(x, n, position, c))
            for position in self.positions_with(pixel)
        ]

    def value_window(self, query: Query, x: np.ndarray) -> list[Number]:
        """Return the numbers in the window of the queried output."""
        n, *position, c = query.indices
        return self.window_numbers(x, n, (0,) * len(self.axes) if self.is_global else position, c)


def max_pool(
    query: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> Arithmetic:
    return _explain_max(query, x, _sliding_windows(x, window_shape, stride, padding, dilation, ceil_mode), ties)


def avg_pool(
    query: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Arithmetic:
    windows = _sliding_windows(x, window_shape, stride, padding, dilation, ceil_mode, count_include_pad)
    return _explain_mean(query, x, windows)


def lp_pool(
    query: Query,
    x: np.ndarray,
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    p: float = 2.0,
) -> Arithmetic:
    return _explain_norm(query, x, _sliding_windows(x, window_shape, stride, padding, dilation, ceil_mode), p)


def global_max_pool(query: Query, x: np.ndarray, *, ties: str = "first") -> Arithmetic:
    return _explain_max(query, x, _global_window(x), ties)


def global_avg_pool(query: Query, x: np.ndarray) -> Arithmetic:
    return _explain_mean(query, x, _global_window(x))


def adaptive_max_pool(query: Query, x: np.ndarray, output_size: IntOrInts, *, ties: str = "first") -> Arithmetic:
    return _explain_max(query, x, _adaptive_windows(x, output_size), ties)


def adaptive_avg_pool(query: Query, x: np.ndarray, output_size: IntOrInts) -> Arithmetic:
    return _explain_mean(query, x, _adaptive_windows(x, output_size))


def _sliding_windows(
    x: np.ndarray,
    window_shape: IntOrInts,
    stride: IntOrInts | None,
    padding: Padding,
    dilation: IntOrInts,
    ceil_mode: bool,
    count_include_pad: bool = False,
) -> PoolWindows:
    size = x.shape[1:-1]
    resolved = resolve_window(Window.for_pooling(window_shape, stride, padding, dilation), size, ceil_mode=ceil_mode)
    axes = []
    for pixels, n, (pad_low, pad_high) in zip(tap_indices(resolved), size, resolved.padding, strict=True):
        # Pixels beyond the padding (ceil_mode) are never counted.
        first, end = (-pad_low, n + pad_high) if count_include_pad else (0, n)
        axes.append([[int(q) if 0 <= q < n else -1 for q in window if first <= q < end] for window in pixels])
    return PoolWindows(axes)


def _global_window(x: np.ndarray) -> PoolWindows:
    return PoolWindows([[range(n)] for n in x.shape[1:-1]], is_global=True)


def _adaptive_windows(x: np.ndarray, output_size: IntOrInts) -> PoolWindows:
    """Return windows of pixels ``⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1``, for outputs q of ``out``."""
    size = x.shape[1:-1]
    sizes = zip(size, canonicalize_sizes(output_size, len(size), "output_size"), strict=True)
    return PoolWindows([[range(q * n // o, -(-(q + 1) * n // o)) for q in range(o)] for n, o in sizes])


def _explain_max(query: Query, x: np.ndarray, windows: PoolWindows, ties: str) -> Arithmetic:
    if query.wrt == "value":
        numbers = windows.value_window(query, x)
        largest = float(np.max([number.value for number in numbers]))
        line = f"{_list_numbers('max', numbers)} = {fmt(largest)}"
        return query.from_groups([Group("", tuple(map(product, numbers)), largest, line)])
    groups = []
    for dy, numbers in windows.gradient_windows(query, x):
        largest = np.max([number.value for number in numbers])
        maxima = [number for number in numbers if number.value == largest or math.isnan(number.value)]
        recipients = maxima[:1] if ties == "first" else maxima
        gradient = dy.value / len(recipients) if query.indices in [number.at for number in recipients] else 0.0
        recipients_text = " and ".join(number.where for number in recipients)
        text = f"{dy.where} = {fmt(dy.value)} goes to {recipients_text}, the largest"
        if len(maxima) > 1:
            text += " (first of ties)" if ties == "first" else f", {fmt(dy.value / len(maxima))} to each"
        term = Term((dy,), gradient, fmt(gradient))
        groups.append(Group(dy.where, (term,), gradient, f"{_list_numbers('max', numbers)}: {text}"))
    subtotals = [fmt(group.subtotal) for group in groups]
    total = exact_sum(group.subtotal for group in groups)
    return query.from_formula(f"total: {join_signed(subtotals) or 'no terms'}", total, groups)


def _explain_mean(query: Query, x: np.ndarray, windows: PoolWindows) -> Arithmetic:
    if query.wrt == "value":
        numbers = windows.value_window(query, x)
        terms = tuple(map(product, numbers))
        mean = exact_sum(term.value for term in terms) / len(terms)
        line = f"({join_signed([term.text for term in terms])}) / {len(terms)} = {fmt(mean)}"
        return query.from_groups([Group("", terms, mean, line)])
    terms = tuple(
        Term((dy,), dy.value / len(numbers), f"{fmt(dy.value)} / {len(numbers)}")
        for dy, numbers in windows.gradient_windows(query, x)
    )
    return query.from_groups([sum_terms("", terms)] if terms else [])


def _explain_norm(query: Query, x: np.ndarray, windows: PoolWindows, p: float) -> Arithmetic:
    power = fmt(p)
    if query.wrt == "value":
        numbers = windows.value_window(query, x)
        with np.errstate(over="ignore"):  # a power may be infinite where the norm is not
            powers = np.abs([number.value for number in numbers]) ** p
        terms = tuple(
            Term((number,), float(value), f"|{fmt(number.value)}|^{power}")
            for number, value in zip(numbers, powers, strict=True)
        )
        norm = _p_norm(numbers, p)
        line = f"({join_signed([term.text for term in terms])})^(1/{power}) = {fmt(norm)}"
        return query.from_groups([Group("", terms, norm, line)])
    a = float(x[query.indices])
    dy_terms = []
    for dy, numbers in windows.gradient_windows(query, x):
        norm = _p_norm(numbers, p)
        # |a| at 0 and the norm of zeros are not differentiable; the op defines their slope as 0.
        slope = math.copysign((abs(a) / norm) ** (p - 1), a) if a else 0.0
        slope_text = f"{'(-1)·' if a < 0 else ''}(|{fmt(a)}| / {fmt(norm)})^{fmt(p - 1)}" if a else "0"
        dy_terms.append(Term((dy,), dy.value * slope, f"{fmt_factor(dy.value)}·{slope_text}"))
    return query.from_groups([sum_terms("", dy_terms)] if dy_terms else [])


def _p_norm(numbers: Sequence[Number], p: float) -> float:
    """Return the p-norm, scaled by the largest magnitude to avoid overflow and underflow."""
    magnitudes = [abs(number.value) for number in numbers]
    scale = max(magnitudes) or 1.0
    return scale * exact_sum((magnitude / scale) ** p for magnitude in magnitudes) ** (1 / p)


def _list_numbers(name: str, numbers: Sequence[Number]) -> str:
    return f"{name}({', '.join(fmt(number.value) for number in numbers)})"
