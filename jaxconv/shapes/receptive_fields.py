"""What an output can see: which pixels its taps meet, how far back that reaches, and how many outputs see a pixel."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxconv.shapes.windows import ResolvedWindow, Window, per_dimension, resolve, span


class View(NamedTuple):
    """What one output can see of the image, and how far its neighbour looks from it: pixels, one entry a dimension."""

    field: tuple[int, ...]
    jump: tuple[int, ...]

    @classmethod
    def of_a_pixel(cls, ndim: int) -> "View":
        """A pixel of the image sees itself."""
        return cls((1,) * ndim, (1,) * ndim)

    def through(self, window: Window) -> "View":
        """The view after one more layer: ``field + (span − 1) · jump`` and ``jump · stride``.

        >>> View.of_a_pixel(1).through(Window(5)).through(Window(2, stride=2))
        View(field=(6,), jump=(2,))
        """
        ndim = len(self.field)
        taps = per_dimension(window.size, ndim, "window")
        dilation = per_dimension(window.dilation, ndim, "dilation")
        stride = per_dimension(window.stride, ndim, "stride")
        reach = zip(self.field, taps, dilation, self.jump, strict=True)
        return View(
            tuple(f + (span(t, d) - 1) * j for f, t, d, j in reach),
            tuple(j * s for j, s in zip(self.jump, stride, strict=True)),
        )


class PlacedView(NamedTuple):
    """A view laid on an image of known size, where padding is known too: which pixels they are, not only how many.

    Attributes:
        view: how many, and how far apart those of neighbours begin.
        start: the first pixel that output 0 sees, one entry a dimension; below 0 it is padding.
    """

    view: View
    start: tuple[int, ...]

    @classmethod
    def of_a_pixel(cls, ndim: int) -> "PlacedView":
        """A pixel of the image sees itself."""
        return cls(View.of_a_pixel(ndim), (0,) * ndim)

    def through(self, window: ResolvedWindow) -> "PlacedView":
        """The view after one more layer; its first window begins ``low · jump`` before the one before it."""
        steps = zip(self.start, window.padding, self.view.jump, strict=True)
        start = tuple(first - low * jump for first, (low, _), jump in steps)
        return PlacedView(self.view.through(Window(window.size, window.stride, 0, window.dilation)), start)

    def beside(self, other: "PlacedView") -> "PlacedView":
        """What two branches see together, which start from the same image: in each dimension all from first to last."""
        pairs = zip(self.start, self.view.field, other.start, other.view.field, strict=True)
        ends = [(min(a, b), max(a + m, b + n)) for a, m, b, n in pairs]
        field = tuple(high - low for low, high in ends)
        return PlacedView(View(field, self.view.jump), tuple(low for low, _ in ends))

    def box(self, place: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The pixels that the output at a place sees, from and up to, one pair a dimension.

        >>> PlacedView.of_a_pixel(2).through(resolve(Window(3, stride=2, padding=1), (9, 9))).box((0, 4))
        ((-1, 2), (7, 10))
        """
        first = [start + p * jump for start, p, jump in zip(self.start, place, self.view.jump, strict=True)]
        return tuple((low, low + field) for low, field in zip(first, self.view.field, strict=True))


def receptive_field(windows: Iterable[Window], ndim: int = 2) -> list[View]:
    """What one output of each layer can see of the image, layer after layer.

    Lecture row 001-17.

    >>> lenet5 = [Window(5), Window(2, stride=2), Window(5), Window(2, stride=2)]
    >>> [(field[0], jump[0]) for field, jump in receptive_field(lenet5)]
    [(5, 1), (6, 2), (14, 2), (16, 4)]
    """
    view = View.of_a_pixel(ndim)
    return [view := view.through(window) for window in windows]


def tap_pixels(window: ResolvedWindow) -> list[np.ndarray]:
    """The pixel that each tap meets at each place, one array ``(out, taps)`` a dimension.

    Tap u of place p meets pixel ``p·stride + u·dilation − low``. Pixels below 0 or beyond the end are padding.

    >>> tap_pixels(resolve(Window(2, stride=2), (4,)))[0].tolist()          # lecture row 000-08
    [[0, 1], [2, 3]]
    """
    dimensions = zip(window.size, window.stride, window.padding, window.dilation, window.out, strict=True)
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
    for pixels, n in zip(tap_pixels(resolve(window, size)), size, strict=True):
        real = pixels[(pixels >= 0) & (pixels < n)]
        counts = np.multiply.outer(counts, np.bincount(real, minlength=n))
    return counts
