"""Normalisation: the mean and the variance that a number is measured against, and then the number.

    y = (x − mean) / √(var + eps) · scale + bias = x̂ · scale + bias

The ops differ in what shares a mean. Backwards, with ``g = dy·scale``, every number of the share has a part:

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
    add,
    factor,
    plain,
    product,
    read,
    signed,
    summed,
)

Index = tuple[int, ...]


class Moments(NamedTuple):
    """What the numbers of a share are measured against, and the lines that say how it came about."""

    mean: float
    var: float
    lines: tuple[Group, ...] = ()


class Norm(NamedTuple):
    """What an op averages over: some axes, and so many neighbouring channels.

    Attributes:
        x: what is normalised.
        axes: averaged over, whole.
        channels: to a group, all of which share a mean.
        eps: added to the variance.
        centred: whether the mean is subtracted.
        given: the moments, one a channel, where the op is told them.
    """

    x: np.ndarray
    axes: Sequence[int]
    channels: int
    eps: float
    centred: bool = True
    given: tuple[np.ndarray, np.ndarray] | None = None

    def share(self, at: Index) -> list[Index]:
        """The indices of all that share a mean with the number at this one, itself included."""
        *rest, c = at
        ranges = [range(self.x.shape[axis]) if axis in self.axes else (i,) for axis, i in enumerate(rest)]
        first = c // self.channels * self.channels
        return list(itertools.product(*ranges, range(first, first + self.channels)))

    def moments(self, at: Index) -> Moments:
        if self.given:
            mean, var = self.given
            return Moments(float(mean[at[-1]]), float(var[at[-1]]))
        numbers = [read("x", self.x, index) for index in self.share(at)]
        if not self.centred:
            square = _mean("mean square", [_square(number) for number in numbers])
            return Moments(0.0, square.subtotal, (square,))
        middle = _mean("mean", [product(number) for number in numbers])
        spread = _mean("var", [_square(number, middle.subtotal) for number in numbers])
        return Moments(middle.subtotal, spread.subtotal, (middle, spread))

    def normalized(self, at: Index, moments: Moments) -> float:
        """x̂."""
        return (float(self.x[at]) - moments.mean) / math.sqrt(moments.var + self.eps)


def batch_norm(
    asked: Query,
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray | None = None,
    var: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> Arithmetic:
    """Each channel over the batch and every pixel."""
    given = None if mean is None or var is None else (mean, var)
    return _explain(asked, Norm(x, range(x.ndim - 1), 1, eps, given=given), scale, bias)


def layer_norm(
    asked: Query, x: np.ndarray, scale: np.ndarray | None = None, bias: np.ndarray | None = None, *, eps: float = 1e-5
) -> Arithmetic:
    """Each pixel over its channels."""
    return _explain(asked, Norm(x, (), x.shape[-1], eps), scale, bias)


def group_norm(
    asked: Query,
    x: np.ndarray,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> Arithmetic:
    """Each group of channels of an example, over its pixels and channels."""
    return _explain(asked, Norm(x, range(1, x.ndim - 1), x.shape[-1] // num_groups, eps), scale, bias)


def instance_norm(
    asked: Query, x: np.ndarray, scale: np.ndarray | None = None, bias: np.ndarray | None = None, *, eps: float = 1e-5
) -> Arithmetic:
    """Each channel of an example over its pixels."""
    return _explain(asked, Norm(x, range(1, x.ndim - 1), 1, eps), scale, bias)


def rms_norm(asked: Query, x: np.ndarray, scale: np.ndarray | None = None, *, eps: float = 1e-6) -> Arithmetic:
    """Each pixel over its channels, and nothing is subtracted."""
    return _explain(asked, Norm(x, (), x.shape[-1], eps, centred=False), scale, None)


def local_response_norm(
    asked: Query, x: np.ndarray, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Arithmetic:
    """``y = x / D^beta`` with ``D = k + alpha · Σ x²``, the sum over the channels nearby.

    A channel is in the sums of its neighbours too, so each of them hands something back:

        dx[c] = dy[c] / D[c]^beta − 2·alpha·beta · x[c] · Σ_{j near c} dy[j]·x[j] / D[j]^(beta + 1)
    """
    *pixel, c = asked.at

    def near(c: int) -> range:
        return range(max(c - size // 2, 0), min(c + size // 2 + 1, x.shape[-1]))

    def squares(c: int, label: str) -> Group:
        return summed(label, [_square(read("x", x, (*pixel, j))) for j in near(c)])

    a = float(x[asked.at])
    if asked.of == "value":
        own = squares(c, "sum of squares")
        text = f"{plain(a)} / ({plain(k)} + {plain(alpha)}·{plain(own.subtotal)})^{plain(beta)}"
        return asked.formula(text, a / (k + alpha * own.subtotal) ** beta, [own])
    lines, terms, divisors = [], [], {}
    for j in near(c):
        lines.append(squares(j, f"sum of squares near channel {j}"))
        divisors[j] = k + alpha * lines[-1].subtotal
        numbers = read("dy", asked.dy, (*pixel, j)), read("x", x, (*pixel, j))
        text = f"{product(*numbers).text}/{plain(divisors[j])}^{plain(beta + 1)}"
        terms.append(Term(numbers, product(*numbers).value / divisors[j] ** (beta + 1), text))
    back = summed("handed back", terms)
    dy = float(asked.dy[asked.at])
    text = f"{plain(dy)} / {plain(divisors[c])}^{plain(beta)}"
    text = signed([text, f"-2·{plain(alpha)}·{plain(beta)}·{factor(a)}·{factor(back.subtotal)}"])
    total = dy / divisors[c] ** beta - 2 * alpha * beta * a * back.subtotal
    return asked.formula(text, total, [*lines, back])


def _explain(asked: Query, norm: Norm, scale: np.ndarray | None, bias: np.ndarray | None) -> Arithmetic:
    if asked.of in ("scale", "bias"):
        return _of_a_parameter(asked, norm)
    at, c = asked.at, asked.at[-1]
    moments = norm.moments(at)
    a, hat = float(norm.x[at]), norm.normalized(at, moments)
    centre = f"({plain(a)} - {factor(moments.mean)})" if norm.centred else plain(a)
    root = f"√({plain(moments.var)} + {plain(norm.eps)})"
    if asked.of == "value":
        text, y = f"{centre} / {root}", hat
        if scale is not None:
            text, y = f"{text}·{factor(scale[c])}", y * float(scale[c])
        if bias is not None:
            text, y = signed([text, plain(bias[c])]), y + float(bias[c])
        return asked.formula(text, y, moments.lines)

    def gradient(index: Index) -> list[Number]:
        """The factors of g."""
        dy = read("dy", asked.dy, index)
        return [dy] if scale is None else [dy, read("scale", scale, index[-1:])]

    g, deviation = product(*gradient(at)), math.sqrt(moments.var + norm.eps)
    if norm.given:
        return asked.formula(f"{g.text} / {root}", g.value / deviation)
    share, name = norm.share(at), "dy" if scale is None else "dy·scale"
    hats = [Number(norm.normalized(index, moments), "x̂", index) for index in share]
    along = _mean(f"mean of {name}·x̂", [product(*gradient(i), h) for i, h in zip(share, hats, strict=True)])
    lines, text, dx = [*moments.lines, along], g.text, g.value - hat * along.subtotal
    if norm.centred:
        level = _mean(f"mean of {name}", [product(*gradient(i)) for i in share])
        lines, text, dx = [*moments.lines, level, along], f"{text} - {factor(level.subtotal)}", dx - level.subtotal
    return asked.formula(f"({text} - {factor(hat)}·{factor(along.subtotal)}) / {root}", dx / deviation, lines)


def _of_a_parameter(asked: Query, norm: Norm) -> Arithmetic:
    """``d_bias[c] = Σ dy`` and ``d_scale[c] = Σ dy·x̂``, over everything in the channel."""
    (c,) = asked.at
    indices = [(*rest, c) for rest in np.ndindex(norm.x.shape[:-1])]
    numbers = [read("dy", asked.dy, index) for index in indices]
    if asked.of == "bias":
        return asked.answer([summed("", list(map(product, numbers)))])
    shares: dict[Index, Moments] = {}  # by the first of a share, so that each is measured once
    terms = []
    for index, number in zip(indices, numbers, strict=True):
        first = norm.share(index)[0]
        if first not in shares:
            shares[first] = norm.moments(index)
        terms.append(product(number, Number(norm.normalized(index, shares[first]), "x̂", index)))
    return asked.answer([summed("", terms)])


def _mean(label: str, terms: Sequence[Term]) -> Group:
    mean = add(term.value for term in terms) / len(terms)
    line = f"{label}: ({signed([term.text for term in terms])}) / {len(terms)} = {plain(mean)}"
    return Group(label, tuple(terms), mean, line)


def _square(number: Number, less: float | None = None) -> Term:
    if less is None:
        return Term((number,), number.value**2, f"{factor(number.value)}²")
    return Term((number,), (number.value - less) ** 2, f"({plain(number.value)} - {factor(less)})²")
