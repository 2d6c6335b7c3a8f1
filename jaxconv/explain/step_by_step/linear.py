"""Convolution, transposed convolution and dense: terms of one sum.

    E = Σ dy[n, p, o] · x[n, q, c] · kernel[u, c, o]     over every kernel offset u that links pixel q to position p

E is linear in each array: ``y[n, p, o]`` is the coefficient of ``dy[n, p, o]``, ``d_kernel[u, c, o]`` that of
``kernel[u, c, o]``, and ``dx[n, q, c]`` that of ``x[n, q, c]``. One number is therefore a sum over the terms with its
index: the products of the other two arrays. The ops differ only in the links ``(q, u, p)``.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxconv.explain.step_by_step.terms import Arithmetic, Query, product, read, sum_terms
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.ops.convolution.transposed import resolve_transposed_window
from jaxconv.shapes import IntOrInts, Padding, Window, resolve_window, tap_indices


class AxisLink(NamedTuple):
    """Link along one axis: pixel of x, kernel offset, and position of y; −1 is outside the array."""

    x: int
    offset: int
    y: int
    padding: bool = False


class Link(NamedTuple):
    """Link over all axes: pixel of x, kernel offset, and position of y."""

    x: tuple[int, ...]
    offset: tuple[int, ...]
    y: tuple[int, ...]
    padding: bool


def conv(
    query: Query,
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
    """Kernel offset u links position p to pixel ``p·stride + u·dilation − pad_low``."""
    window = resolve_window(Window(kernel.shape[:-2], stride, padding, dilation), x.shape[1:-1])
    # Source pixel of each position of the padded image: itself, the pixel that the padding repeats, or −1 for a zero.
    pad_options: dict[str, Any] = {"mode": PADDING_MODES[padding_mode]}
    if padding_mode == "zeros":
        pad_options["constant_values"] = -1
    axes = []
    for pixels, n, pads, size in zip(tap_indices(window), x.shape[1:-1], window.padding, window.size, strict=True):
        source = np.pad(np.arange(n), pads, **pad_options)
        axes.append(
            [
                AxisLink(int(source[q + pads[0]]), size - 1 - u if flip_kernel else u, p, padding=not 0 <= q < n)
                for (p, u), q in np.ndenumerate(pixels)
            ]
        )
    return _explain(query, axes, x, kernel, bias, groups)


def conv_transpose(
    query: Query,
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
    """Kernel offset u links pixel q to position ``q·stride + u·dilation − pad_low``, if it is inside the output."""
    transposed_window = resolve_transposed_window(
        kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation
    )
    axes = []
    for n, size, s, d, pad_low, out in zip(x.shape[1:-1], *transposed_window, strict=True):
        links = ((q, u, q * s + u * d - pad_low) for q in range(n) for u in range(size))
        axes.append([AxisLink(q, u, p if 0 <= p < out else -1) for q, u, p in links])
    return _explain(query, axes, x, kernel, bias, groups)


def dense(query: Query, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> Arithmetic:
    """A convolution without spatial axes: every input is linked to every output."""
    return _explain(query, [], x, kernel, bias, groups=1)


def flatten(query: Query, x: np.ndarray) -> Arithmetic:
    """Return the same number from its other index."""
    if query.wrt == "value":
        n, i = query.indices
        number = read("x", x, (n, *map(int, np.unravel_index(i, x.shape[1:]))))
    else:
        n, *rest = query.indices
        number = read("dy", query.dy, (n, int(np.ravel_multi_index(rest, x.shape[1:]))))
    return query.from_formula(number.where, number.value)


def _explain(
    query: Query,
    axes: Sequence[Sequence[AxisLink]],
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
) -> Arithmetic:
    """Return the coefficient of the requested number in E, with one group per channel, example or filter."""
    *_, channels, features = kernel.shape
    group_size = features // groups  # filters per group; each has `channels` input channels
    dy = query.dy
    if query.wrt == "value":
        n, *position, o = query.indices
        first_channel = o // group_size * channels
        links = _links(axes, y=position)
        lines = {
            f"channel {first_channel + c}": [
                product(
                    read("x", x, (n, *link.x, first_channel + c), padding=link.padding),
                    read("kernel", kernel, (*link.offset, c, o)),
                )
                for link in links
            ]
            for c in range(channels)
        }
    elif query.wrt == "kernel":
        *offset, c, o = query.indices
        first_channel = o // group_size * channels
        links = _links(axes, offset=offset)
        lines = {
            f"example {n}": [
                product(
                    read("x", x, (n, *link.x, first_channel + c), padding=link.padding), read("dy", dy, (n, *link.y, o))
                )
                for link in links
            ]
            for n in range(len(x))
        }
    elif query.wrt == "x":
        n, *pixel, c = query.indices
        group, c = divmod(c, channels)
        links = _links(axes, x=pixel)
        lines = {
            f"filter {o}": [
                product(read("kernel", kernel, (*link.offset, c, o)), read("dy", dy, (n, *link.y, o))) for link in links
            ]
            for o in range(group * group_size, (group + 1) * group_size)
        }
    else:
        (o,) = query.indices
        positions = list(np.ndindex(dy.shape[1:-1]))
        lines = {f"example {n}": [product(read("dy", dy, (n, *p, o))) for p in positions] for n in range(len(x))}
    if not axes:  # dense: one line, because each group has a single term
        lines = {"": list(itertools.chain(*lines.values()))}
    groups_of_terms = [sum_terms(label, terms) for label, terms in lines.items() if terms]
    bias_value = float(bias[query.indices[-1]]) if bias is not None and query.wrt == "value" else None
    return query.from_groups(groups_of_terms, bias=bias_value)


def _links(axes: Sequence[Sequence[AxisLink]], **fixed: Sequence[int]) -> list[Link]:
    """List all links with a given pixel ``x``, kernel ``offset`` or position ``y``, in reading order."""
    ((field, index),) = fixed.items()
    per_axis = [[link for link in axis if getattr(link, field) == i] for axis, i in zip(axes, index, strict=True)]
    return [
        Link(
            x=tuple(link.x for link in combination),
            offset=tuple(link.offset for link in combination),
            y=tuple(link.y for link in combination),
            padding=any(link.padding for link in combination),
        )
        for combination in itertools.product(*per_axis)
    ]
