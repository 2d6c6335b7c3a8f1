"""Normalization: the mean and the variance of a set of numbers, and the normalized number.

    y = (x − mean) / √(var + eps) · scale + bias = x̂ · scale + bias

The ops differ in the set over which mean and variance are computed. The gradient, with ``g = dy·scale`` and means over
the same set, is

    dx = (g − mean of g − x̂ · mean of g·x̂) / √(var + eps)
"""

import itertools
import math
from collections.abc import Sequence
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

Index = tuple[int, ...]


class Moments(NamedTuple):
    """Mean and variance of a set of numbers, and the lines that derive them."""

    mean: float
    var: float
    lines: tuple[Group, ...] = ()


class Normalization(NamedTuple):
    """Axes and channels over which an op computes its statistics.

    Attributes:
        x: input of the op.
        axes: axes over which the statistics are computed.
        group_size: number of adjacent channels over which the statistics are computed.
        eps: constant added to the variance.
        centered: True if the mean is subtracted.
        running: running mean and variance per channel, used instead of the statistics of x; or None.
    """

    x: np.ndarray
    axes: Sequence[int]
    group_size: int
    eps: float
    centered: bool = True
    running: tuple[np.ndarray, np.ndarray] | None = None

    def same_statistics(self, index: Index) -> list[Index]:
        """Return the indices of all numbers with the same statistics as the number at ``index``."""
        *rest, c = index
        ranges = [range(self.x.shape[axis]) if axis in self.axes else (i,) for axis, i in enumerate(rest)]
        first_channel = c // self.group_size * self.group_size
        return list(itertools.product(*ranges, range(first_channel, first_channel + self.group_size)))

    def moments(self, index: Index) -> Moments:
        if self.running:
            running_mean, running_var = self.running
            return Moments(float(running_mean[index[-1]]), float(running_var[index[-1]]))
        values = [read("x", self.x, i) for i in self.same_statistics(index)]
        if not self.centered:
            mean_square = _mean_group("mean square", [_square_term(number) for number in values])
            return Moments(0.0, mean_square.subtotal, (mean_square,))
        mean = _mean_group("mean", [product(number) for number in values])
        var = _mean_group("var", [_square_term(number, mean.subtotal) for number in values])
        return Moments(mean.subtotal, var.subtotal, (mean, var))

    def normalized(self, index: Index, moments: Moments) -> float:
        """Return x̂ at ``index``."""
        return (float(self.x[index]) - moments.mean) / math.sqrt(moments.var + self.eps)


def batch_norm(
    query: Query,
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray | None = None,
    var: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> Arithmetic:
    """Statistics of each channel over the batch and all pixels."""
    running = None if mean is None or var is None else (mean, var)
    return _explain(query, Normalization(x, range(x.ndim - 1), 1, eps, running=running), scale, bias)


def layer_norm(
    query: Query, x: np.ndarray, scale: np.ndarray | None = None, bias: np.ndarray | None = None, *, eps: float = 1e-5
) -> Arithmetic:
    """Statistics of each pixel over its channels."""
    return _explain(query, Normalization(x, (), x.shape[-1], eps), scale, bias)


def group_norm(
    query: Query,
    x: np.ndarray,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> Arithmetic:
    """Statistics of each example and group of channels, over pixels and channels."""
    return _explain(query, Normalization(x, range(1, x.ndim - 1), x.shape[-1] // num_groups, eps), scale, bias)


def instance_norm(
    query: Query, x: np.ndarray, scale: np.ndarray | None = None, bias: np.ndarray | None = None, *, eps: float = 1e-5
) -> Arithmetic:
    """Statistics of each example and channel over its pixels."""
    return _explain(query, Normalization(x, range(1, x.ndim - 1), 1, eps), scale, bias)


def rms_norm(query: Query, x: np.ndarray, scale: np.ndarray | None = None, *, eps: float = 1e-6) -> Arithmetic:
    """Mean square of each pixel over its channels; no mean is subtracted."""
    return _explain(query, Normalization(x, (), x.shape[-1], eps, centered=False), scale, None)


def local_response_norm(
    query: Query, x: np.ndarray, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Arithmetic:
    """``y = x / D^beta`` with ``D = k + alpha · Σ x²``, a sum over neighboring channels.

    The gradient includes the neighbors j, because x[c] is a term of their sums D[j]:

        dx[c] = dy[c] / D[c]^beta − 2·alpha·beta · x[c] · Σ_{j near c} dy[j]·x[j] / D[j]^(beta + 1)
    """
    *pixel, c = query.indices

    def neighbors(c: int) -> range:
        return range(max(c - size // 2, 0), min(c + size // 2 + 1, x.shape[-1]))

    def sum_of_squares(c: int, label: str) -> Group:
        return sum_terms(label, [_square_term(read("x", x, (*pixel, j))) for j in neighbors(c)])

    a = float(x[query.indices])
    if query.wrt == "value":
        group = sum_of_squares(c, "sum of squares")
        text = f"{fmt(a)} / ({fmt(k)} + {fmt(alpha)}·{fmt(group.subtotal)})^{fmt(beta)}"
        return query.from_formula(text, a / (k + alpha * group.subtotal) ** beta, [group])
    groups, terms, denominators = [], [], {}
    for j in neighbors(c):
        groups.append(sum_of_squares(j, f"sum of squares near channel {j}"))
        denominators[j] = k + alpha * groups[-1].subtotal
        factors = read("dy", query.dy, (*pixel, j)), read("x", x, (*pixel, j))
        text = f"{product(*factors).text}/{fmt(denominators[j])}^{fmt(beta + 1)}"
        terms.append(Term(factors, product(*factors).value / denominators[j] ** (beta + 1), text))
    neighbor_sum = sum_terms("sum over neighbors", terms)
    dy = float(query.dy[query.indices])
    text = f"{fmt(dy)} / {fmt(denominators[c])}^{fmt(beta)}"
    text = join_signed([text, f"-2·{fmt(alpha)}·{fmt(beta)}·{fmt_factor(a)}·{fmt_factor(neighbor_sum.subtotal)}"])
    total = dy / denominators[c] ** beta - 2 * alpha * beta * a * neighbor_sum.subtotal
    return query.from_formula(text, total, [*groups, neighbor_sum])


def _explain(
    query: Query, normalization: Normalization, scale: np.ndarray | None, bias: np.ndarray | None
) -> Arithmetic:
    if query.wrt in ("scale", "bias"):
        return _explain_parameter(query, normalization)
    index, c = query.indices, query.indices[-1]
    moments = normalization.moments(index)
    a, x_hat = float(normalization.x[index]), normalization.normalized(index, moments)
    centered_text = f"({fmt(a)} - {fmt_factor(moments.mean)})" if normalization.centered else fmt(a)
    root = f"√({fmt(moments.var)} + {fmt(normalization.eps)})"
    if query.wrt == "value":
        text, y = f"{centered_text} / {root}", x_hat
        if scale is not None:
            text, y = f"{text}·{fmt_factor(scale[c])}", y * float(scale[c])
        if bias is not None:
            text, y = join_signed([text, fmt(bias[c])]), y + float(bias[c])
        return query.from_formula(text, y, moments.lines)

    def g_factors(index: Index) -> list[Number]:
        """Return the factors of g."""
        dy = read("dy", query.dy, index)
        return [dy] if scale is None else [dy, read("scale", scale, index[-1:])]

    g, deviation = product(*g_factors(index)), math.sqrt(moments.var + normalization.eps)
    if normalization.running:
        return query.from_formula(f"{g.text} / {root}", g.value / deviation)
    indices, name = normalization.same_statistics(index), "dy" if scale is None else "dy·scale"
    x_hats = [Number(normalization.normalized(i, moments), "x̂", i) for i in indices]
    products = [product(*g_factors(i), h) for i, h in zip(indices, x_hats, strict=True)]
    mean_g_x_hat = _mean_group(f"mean of {name}·x̂", products)
    groups, text, dx = [*moments.lines], g.text, g.value - x_hat * mean_g_x_hat.subtotal
    if normalization.centered:
        mean_g = _mean_group(f"mean of {name}", [product(*g_factors(i)) for i in indices])
        groups, text, dx = [*groups, mean_g], f"{text} - {fmt_factor(mean_g.subtotal)}", dx - mean_g.subtotal
    text = f"({text} - {fmt_factor(x_hat)}·{fmt_factor(mean_g_x_hat.subtotal)}) / {root}"
    return query.from_formula(text, dx / deviation, [*groups, mean_g_x_hat])


def _explain_parameter(query: Query, normalization: Normalization) -> Arithmetic:
    """``d_bias[c] = Σ dy`` and ``d_scale[c] = Σ dy·x̂``, over all positions of the channel."""
    (c,) = query.indices
    indices = [(*rest, c) for rest in np.ndindex(normalization.x.shape[:-1])]
    dy = [read("dy", query.dy, index) for index in indices]
    if query.wrt == "bias":
        return query.from_groups([sum_terms("", list(map(product, dy)))])
    moments: dict[Index, Moments] = {}  # by the first index of each set, to compute them once
    terms = []
    for index, dy_value in zip(indices, dy, strict=True):
        first_index = normalization.same_statistics(index)[0]
        if first_index not in moments:
            moments[first_index] = normalization.moments(index)
        terms.append(product(dy_value, Number(normalization.normalized(index, moments[first_index]), "x̂", index)))
    return query.from_groups([sum_terms("", terms)])


def _mean_group(label: str, terms: Sequence[Term]) -> Group:
    mean = exact_sum(term.value for term in terms) / len(terms)
    line = f"{label}: ({join_signed([term.text for term in terms])}) / {len(terms)} = {fmt(mean)}"
    return Group(label, tuple(terms), mean, line)


def _square_term(number: Number, mean: float | None = None) -> Term:
    if mean is None:
        return Term((number,), number.value**2, f"{fmt_factor(number.value)}²")
    return Term((number,), (number.value - mean) ** 2, f"({fmt(number.value)} - {fmt_factor(mean)})²")
