"""Numbers, the products made of them, the sums made of those, and how a lecture writes all three."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Number(NamedTuple):
    """A number, and where it was read.

    Attributes:
        value: the number.
        of: the array it was read from: ``"x"``, ``"kernel"``, ``"dy"``, …
        at: its index there; None for a zero that stands outside the array.
        padding: whether it stands for padding: a zero, or a pixel that the padding repeats.
    """

    value: float
    of: str
    at: tuple[int, ...] | None
    padding: bool = False

    @property
    def where(self) -> str:
        """As in ``x[0,1,0,0]``."""
        return "outside" if self.at is None else f"{self.of}[{','.join(map(str, self.at))}]"


class Term(NamedTuple):
    """What is added up: mostly a product of two numbers.

    Attributes:
        numbers: its factors.
        value: what it comes to.
        text: as it is written, ``3·(-1)``.
    """

    numbers: tuple[Number, ...]
    value: float
    text: str

    @property
    def padding(self) -> bool:
        """Whether a factor stands for padding."""
        return any(number.padding for number in self.numbers)


class Group(NamedTuple):
    """The terms that are written on one line.

    Attributes:
        label: what they have in common: ``channel 0``.
        terms: in reading order.
        subtotal: what they come to.
        line: all of it as it is written, ``channel 0: 3·1 + 51·0 = 3``.
    """

    label: str
    terms: tuple[Term, ...]
    subtotal: float
    line: str


class Arithmetic(NamedTuple):
    """The sum behind one number; ``print`` it.

    Attributes:
        title: which number: ``conv: y[0, 0, 0, 0]``.
        groups: its terms, line by line; none where a formula says it all.
        bias: what is added in the end, if anything.
        total: the number itself.
        closing: how the total follows from the lines, as it is written; empty where there is one line and it says so.
    """

    title: str
    groups: tuple[Group, ...]
    bias: float | None
    total: float
    closing: str

    @property
    def terms(self) -> list[Term]:
        """Those of all lines, one after the other."""
        return [term for group in self.groups for term in group.terms]

    def __str__(self) -> str:
        lines = [group.line for group in self.groups]
        if self.closing:
            said = self.closing.endswith(f": {plain(self.total)}")
            lines.append(self.closing if said else f"{self.closing} = {plain(self.total)}")
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
    """The number that is asked for.

    Attributes:
        op: whose.
        of: its ``"value"``, or the array whose gradient it is.
        at: the index.
        dy: the output's gradient; empty if a value is asked for.
    """

    op: str
    of: str
    at: tuple[int, ...]
    dy: np.ndarray

    @property
    def title(self) -> str:
        name = {"value": "y", "x": "dx"}.get(self.of, f"d_{self.of}")
        return f"{self.op}: {name}[{', '.join(map(str, self.at))}]"

    def answer(self, groups: Iterable[Group], *, bias: float | None = None) -> Arithmetic:
        """Lines that are added up, and the bias to them."""
        groups = tuple(groups)
        added = [group.subtotal for group in groups] + ([] if bias is None else [bias])
        texts = [plain(value) for value in added]
        if bias is not None:
            texts[-1] += " (bias)"
        closing = "" if len(groups) == 1 and bias is None else f"total: {signed(texts) or 'nothing meets it'}"
        return Arithmetic(self.title, groups, bias, add(added), closing)

    def formula(self, text: str, total: float, groups: Iterable[Group] = ()) -> Arithmetic:
        """A formula with its numbers put in, after the lines that those numbers come from."""
        return Arithmetic(self.title, tuple(groups), None, total, text)


def read(of: str, array: np.ndarray, at: Sequence[int], *, padding: bool = False) -> Number:
    """The number at an index, of which −1 is outside the array, where zeros are."""
    if -1 in at:
        return Number(0.0, of, None, padding=True)
    return Number(float(array[tuple(at)]), of, tuple(int(i) for i in at), padding)


def product(*numbers: Number) -> Term:
    """A term; of one number it is that number."""
    values = [number.value for number in numbers]
    text = "·".join(map(factor, values)) if len(values) > 1 else plain(*values)
    return Term(numbers, math.prod(values), text)


def summed(label: str, terms: Sequence[Term]) -> Group:
    """A line that adds its terms up."""
    subtotal = add(term.value for term in terms)
    text = f"{signed([term.text for term in terms])} = {plain(subtotal)}"
    return Group(label, tuple(terms), subtotal, f"{label}: {text}" if label else text)


def add(values: Iterable[float]) -> float:
    """A sum that is rounded once, at the end."""
    values = list(values)
    return math.fsum(values) if all(map(math.isfinite, values)) else float(sum(values))


def signed(texts: Sequence[str]) -> str:
    """Joined by pluses, or by the minus that a text begins with.

    >>> signed(["-448", "-91", "472"])
    '-448 - 91 + 472'
    """
    return "".join(texts[:1]) + "".join(f" - {t[1:]}" if t.startswith("-") else f" + {t}" for t in texts[1:])


def plain(value: float) -> str:
    """A whole number as it is, any other with four digits.

    >>> plain(-448.0), plain(2 / 3)
    ('-448', '0.6667')
    """
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def factor(value: float) -> str:
    """In parentheses if it is negative, to stand in a product."""
    return f"({plain(value)})" if plain(value).startswith("-") else plain(value)
