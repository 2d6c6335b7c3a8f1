"""Numbers, terms and groups of a sum, and their text as in the lectures."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Number(NamedTuple):
    """A number and the array element it comes from.

    Attributes:
        value: the number.
        of: name of the array: ``"x"``, ``"kernel"``, ``"dy"``, …
        at: index in the array; None for a zero outside the array.
        padding: True for padding: a zero, or a pixel that the padding repeats.
    """

    value: float
    of: str
    at: tuple[int, ...] | None
    padding: bool = False

    @property
    def where(self) -> str:
        """The array element as text, such as ``x[0,1,0,0]``; ``outside`` for a zero outside the array."""
        return "outside" if self.at is None else f"{self.of}[{','.join(map(str, self.at))}]"


class Term(NamedTuple):
    """A term of a sum, such as the product of two numbers.

    Attributes:
        numbers: factors of the term.
        value: value of the term.
        text: text of the term, ``3·(-1)``.
    """

    numbers: tuple[Number, ...]
    value: float
    text: str

    @property
    def padding(self) -> bool:
        """True if a factor is padding."""
        return any(number.padding for number in self.numbers)


class Group(NamedTuple):
    """A group of terms that is written on one line.

    Attributes:
        label: label of the group, ``channel 0``.
        terms: terms in reading order.
        subtotal: value of the group.
        line: text of the group, ``channel 0: 3·1 + 51·0 = 3``.
    """

    label: str
    terms: tuple[Term, ...]
    subtotal: float
    line: str


class Arithmetic(NamedTuple):
    """The sum that gives one number; ``print`` shows it as text.

    Attributes:
        title: name of the number, ``conv: y[0, 0, 0, 0]``.
        groups: groups of terms, one line each; empty if a formula suffices.
        bias: bias that is added to the groups, or None.
        total: the number.
        closing: last line, which derives the total from the groups; empty if the only group ends with the total.
    """

    title: str
    groups: tuple[Group, ...]
    bias: float | None
    total: float
    closing: str

    @property
    def terms(self) -> list[Term]:
        """The terms of all groups."""
        return [term for group in self.groups for term in group.terms]

    def __str__(self) -> str:
        lines = [group.line for group in self.groups]
        if self.closing:
            has_total = self.closing.endswith(f": {fmt(self.total)}")
            lines.append(self.closing if has_total else f"{self.closing} = {fmt(self.total)}")
        wrapped = (
            textwrap.fill(
                line,
                width=100,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in lines
        )
        return "\n".join([self.title, *wrapped])


class Query(NamedTuple):
    """The requested number.

    Attributes:
        op: name of the op.
        wrt: ``"value"`` for the output, or the array with respect to which the gradient is taken.
        indices: indices of the number, one per axis.
        dy: gradient of the output; empty for ``"value"``.
    """

    op: str
    wrt: str
    indices: tuple[int, ...]
    dy: np.ndarray

    @property
    def title(self) -> str:
        name = {"value": "y", "x": "dx"}.get(self.wrt, f"d_{self.wrt}")
        return f"{self.op}: {name}[{', '.join(map(str, self.indices))}]"

    def from_groups(self, groups: Iterable[Group], *, bias: float | None = None) -> Arithmetic:
        """Return the sum of the groups and the bias."""
        groups = tuple(groups)
        values = [group.subtotal for group in groups] + ([] if bias is None else [bias])
        texts = [fmt(value) for value in values]
        if bias is not None:
            texts[-1] += " (bias)"
        closing = "" if len(groups) == 1 and bias is None else f"total: {join_signed(texts) or 'no terms'}"
        return Arithmetic(self.title, groups, bias, exact_sum(values), closing)

    def from_formula(self, text: str, total: float, groups: Iterable[Group] = ()) -> Arithmetic:
        """Return a formula with its numbers inserted, preceded by the groups that the numbers come from."""
        return Arithmetic(self.title, tuple(groups), None, total, text)


def read(of: str, array: np.ndarray, index: Sequence[int], *, padding: bool = False) -> Number:
    """Return the number at an index; an index of −1 is outside the array, where the value is 0."""
    if -1 in index:
        return Number(0.0, of, None, padding=True)
    return Number(float(array[tuple(index)]), of, tuple(int(i) for i in index), padding)


def product(*numbers: Number) -> Term:
    """Return the product of the numbers as a term."""
    values = [number.value for number in numbers]
    text = "·".join(map(fmt_factor, values)) if len(values) > 1 else fmt(*values)
    return Term(numbers, math.prod(values), text)


def sum_terms(label: str, terms: Sequence[Term]) -> Group:
    """Return the sum of the terms as a group."""
    subtotal = exact_sum(term.value for term in terms)
    text = f"{join_signed([term.text for term in terms])} = {fmt(subtotal)}"
    return Group(label, tuple(terms), subtotal, f"{label}: {text}" if label else text)


def exact_sum(values: Iterable[float]) -> float:
    """Return the sum of the values, rounded once."""
    values = list(values)
    return math.fsum(values) if all(map(math.isfinite, values)) else float(sum(values))


def join_signed(texts: Sequence[str]) -> str:
    """Join texts with `` + ``, or with `` - `` before a negative text.

    >>> join_signed(["-448", "-91", "472"])
    '-448 - 91 + 472'
    """
    return "".join(texts[:1]) + "".join(f" - {t[1:]}" if t.startswith("-") else f" + {t}" for t in texts[1:])


def fmt(value: float) -> str:
    """Format an integer exactly and any other number with four digits.

    >>> fmt(-448.0), fmt(2 / 3)
    ('-448', '0.6667')
    """
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def fmt_factor(value: float) -> str:
    """Format a factor of a product, with parentheses if it is negative."""
    return f"({fmt(value)})" if fmt(value).startswith("-") else fmt(value)
