"""What an output can see: which pixels its taps meet, how far back that reaches, and how many outputs see a pixel."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxconv.shapes.windows import ResolvedWindow, Window, canonicalize_sizes, dilated_size, resolve_window


class ReceptiveField(NamedTuple):
    """What one output can see of the image, and how far its neighbour looks from it: pixels, one entry a dimension."""

    size: tuple[int, ...]
    effective_stride: tuple[int, ...]

    @classmethod
    def identity(cls, ndim: int) -> "ReceptiveField":
        """A pixel of the image sees itself."""
        return cls((1,) * ndim, (1,) * ndim)

    def after(self, window: Window) -> "ReceptiveField":
        """The view after one more layer: ``field + (span − 1) · jump`` and ``jump · stride``.

        >>> ReceptiveField.identity(1).after(Window(5)).after(Window(2, stride=2))
        ReceptiveField(size=(6,), effective_stride=(2,))
        """
        ndim = len(self.size)
        taps = canonicalize_sizes(window.size, ndim, "window")
        dilation = canonicalize_sizes(window.dilation, ndim, "dilation")
        stride = canonicalize_sizes(window.stride, ndim, "stride")
        reach = zip(self.size, taps, dilation, self.effective_stride, strict=True)
        return ReceptiveField(
            tuple(f + (dilated_size(t, d) - 1) * j for f, t, d, j in reach),
            tuple(j * s for j, s in zip(self.effective_stride, stride, strict=True)),
        )


class PositionedReceptiveField(NamedTuple):
    """A view laid on an image of known size, where padding is known too: which pixels they are, not only how many.

    Attributes:
        field: how many, and how far apart those of neighbours begin.
        offset: the first pixel that output 0 sees, one entry a dimension; below 0 it is padding.
    """

    field: ReceptiveField
    offset: tuple[int, ...]

    @classmethod
    def identity(cls, ndim: int) -> "PositionedReceptiveField":
        """A pixel of the image sees itself."""
        return cls(ReceptiveField.identity(ndim), (0,) * ndim)

    def after(self, window: ResolvedWindow) -> "PositionedReceptiveField":
        """The view after one more layer; its first window begins ``low · jump`` before the one before it."""
        steps = zip(self.offset, window.padding, self.field.effective_stride, strict=True)
        start = tuple(first - low * jump for first, (low, _), jump in steps)
        return PositionedReceptiveField(self.field.after(Window(window.size, window.stride, 0, window.dilation)), start)

    def union(self, other: "PositionedReceptiveField") -> "PositionedReceptiveField":
        """What two branches see together, which start from the same image: in each dimension all from first to last."""
        pairs = zip(self.offset, self.field.size, other.offset, other.field.size, strict=True)
        ends = [(min(a, b), max(a + m, b + n)) for a, m, b, n in pairs]
        field = tuple(high - low for low, high in ends)
        return PositionedReceptiveField(
            ReceptiveField(field, self.field.effective_stride), tuple(low for low, _ in ends)
        )

    def bounds(self, place: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The pixels that the output at a place sees, from and up to, one pair a dimension.

        >>> field = PositionedReceptiveField.identity(2)
        >>> field.after(resolve_window(Window(3, stride=2, padding=1), (9, 9))).bounds((0, 4))
        ((-1, 2), (7, 10))
        """
        first = [
            start + p * jump for start, p, jump in zip(self.offset, place, self.field.effective_stride, strict=True)
        ]
        return tuple((low, low + field) for low, field in zip(first, self.field.size, strict=True))


def receptive_field(windows: Iterable[Window], ndim: int = 2) -> list[ReceptiveField]:
    """What one output of each layer can see of the image, layer after layer.

    Lecture row 001-17.

    >>> lenet5 = [Window(5), Window(2, stride=2), Window(5), Window(2, stride=2)]
    >>> [(field[0], jump[0]) for field, jump in receptive_field(lenet5)]
    [(5, 1), (6, 2), (14, 2), (16, 4)]
    """
    view = ReceptiveField.identity(ndim)
    return [view := view.after(window) for window in windows]


def tap_indices(window: ResolvedWindow) -> list[np.ndarray]:
    """The pixel that each tap meets at each place, one array ``(out, taps)`` a dimension.

    Tap u of place p meets pixel ``p·stride + u·dilation − low``. Pixels below 0 or beyond the end are padding.

    >>> tap_indices(resolve_window(Window(2, stride=2), (4,)))[0].tolist()          # lecture row 000-08
    [[0, 1], [2, 3]]
    """
    dimensions = zip(window.size, window.stride, window.padding, window.dilation, window.out_size, strict=True)
    return [
        np.arange(out)[:, None] * stride + np.arange(taps) * dilation - low
        for taps, stride, (low, _), dilation, out in dimensions
    ]


def coverage(window: Window, size: Sequence[int]) -> np.ndarray:
    """How many outputs look at each input pixel: an array of ints of shape ``size``.

    Without padding the corners are used least: the lectures' second reason to pad (rows 001-23, 002-18).

    >>> coverage(Window(3), (5, 5))
    array([[1, 2, 3, 2, 1],
           [2, 4, 6, 4, 2],
           [3, 6, 9, 6, 3],
           [2, 4, 6, 4, 2],
           [1, 2, 3, 2, 1]])
    """
    counts = np.ones((), int)
    for pixels, n in zip(tap_indices(resolve_window(window, size)), size, strict=True):
        real = pixels[(pixels >= 0) & (pixels < n)]
        counts = np.multiply.outer(counts, np.bincount(real, minlength=n))
    return counts
