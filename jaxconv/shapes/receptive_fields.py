"""Receptive fields: the input pixels that each output depends on, and the number of outputs that use each pixel."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxconv.shapes.windows import ResolvedWindow, Window, canonicalize_sizes, dilated_size, resolve_window


class ReceptiveField(NamedTuple):
    """Size of a receptive field and its distance to the next one, in pixels of the image, one entry per dimension.

    Attributes:
        size: extent of the receptive field of one output.
        effective_stride: distance between the receptive fields of neighboring outputs, the product of all strides.
    """

    size: tuple[int, ...]
    effective_stride: tuple[int, ...]

    @classmethod
    def identity(cls, ndim: int) -> "ReceptiveField":
        """Receptive field of a pixel of the image: the pixel itself."""
        return cls((1,) * ndim, (1,) * ndim)

    def after(self, window: Window) -> "ReceptiveField":
        """Append a layer: ``size + (dilated_size − 1) · effective_stride`` and ``effective_stride · stride``.

        >>> ReceptiveField.identity(1).after(Window(5)).after(Window(2, stride=2))
        ReceptiveField(size=(6,), effective_stride=(2,))
        """
        ndim = len(self.size)
        window_size = canonicalize_sizes(window.size, ndim, "window")
        dilation = canonicalize_sizes(window.dilation, ndim, "dilation")
        stride = canonicalize_sizes(window.stride, ndim, "stride")
        dimensions = zip(self.size, window_size, dilation, self.effective_stride, strict=True)
        return ReceptiveField(
            tuple(size + (dilated_size(f, d) - 1) * jump for size, f, d, jump in dimensions),
            tuple(jump * s for jump, s in zip(self.effective_stride, stride, strict=True)),
        )


class PositionedReceptiveField(NamedTuple):
    """Receptive field with a position: for an image of known size, where the padding is known too.

    Attributes:
        field: size and effective stride.
        offset: first pixel of the receptive field of output 0, one entry per dimension; negative in the padding.
    """

    field: ReceptiveField
    offset: tuple[int, ...]

    @classmethod
    def identity(cls, ndim: int) -> "PositionedReceptiveField":
        """Receptive field of a pixel of the image: the pixel itself."""
        return cls(ReceptiveField.identity(ndim), (0,) * ndim)

    def after(self, window: ResolvedWindow) -> "PositionedReceptiveField":
        """Append a layer; the offset decreases by ``low · effective_stride``."""
        dimensions = zip(self.offset, window.padding, self.field.effective_stride, strict=True)
        offset = tuple(start - low * jump for start, (low, _), jump in dimensions)
        field = self.field.after(Window(window.size, window.stride, 0, window.dilation))
        return PositionedReceptiveField(field, offset)

    def union(self, other: "PositionedReceptiveField") -> "PositionedReceptiveField":
        """Bounding box of the receptive fields of two branches that start from the same image."""
        pairs = zip(self.offset, self.field.size, other.offset, other.field.size, strict=True)
        bounds = [(min(a, b), max(a + m, b + n)) for a, m, b, n in pairs]
        size = tuple(high - low for low, high in bounds)
        return PositionedReceptiveField(
            ReceptiveField(size, self.field.effective_stride), tuple(low for low, _ in bounds)
        )

    def bounds(self, place: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return the pixel range ``(start, stop)`` of the output at a position, one pair per dimension.

        >>> field = PositionedReceptiveField.identity(2)
        >>> field.after(resolve_window(Window(3, stride=2, padding=1), (9, 9))).bounds((0, 4))
        ((-1, 2), (7, 10))
        """
        lows = [
            start + p * jump for start, p, jump in zip(self.offset, place, self.field.effective_stride, strict=True)
        ]
        return tuple((low, low + size) for low, size in zip(lows, self.field.size, strict=True))


def receptive_field(windows: Iterable[Window], ndim: int = 2) -> list[ReceptiveField]:
    """Receptive field of one output of each layer, in order.

    Lecture row 001-17.

    >>> lenet5 = [Window(5), Window(2, stride=2), Window(5), Window(2, stride=2)]
    >>> [(field[0], jump[0]) for field, jump in receptive_field(lenet5)]
    [(5, 1), (6, 2), (14, 2), (16, 4)]
    """
    field = ReceptiveField.identity(ndim)
    return [field := field.after(window) for window in windows]


def tap_indices(window: ResolvedWindow) -> list[np.ndarray]:
    """Input pixel of each kernel offset at each output position, one array ``(out, taps)`` per dimension.

    Kernel offset u at position p is pixel ``p·stride + u·dilation − low``. Indices outside the input are padding.

    >>> tap_indices(resolve_window(Window(2, stride=2), (4,)))[0].tolist()          # lecture row 000-08
    [[0, 1], [2, 3]]
    """
    dimensions = zip(window.size, window.stride, window.padding, window.dilation, window.out_size, strict=True)
    return [
        np.arange(out)[:, None] * stride + np.arange(size) * dilation - low
        for size, stride, (low, _), dilation, out in dimensions
    ]


def coverage(window: Window, size: Sequence[int]) -> np.ndarray:
    """Count the outputs that use each input pixel: an array of ints of shape ``size``.

    Without padding, corners are used least, the second reason for padding in the lectures (rows 001-23, 002-18).

    >>> coverage(Window(3), (5, 5))
    array([[1, 2, 3, 2, 1],
           [2, 4, 6, 4, 2],
           [3, 6, 9, 6, 3],
           [2, 4, 6, 4, 2],
           [1, 2, 3, 2, 1]])
    """
    counts = np.ones((), int)
    for pixels, n in zip(tap_indices(resolve_window(window, size)), size, strict=True):
        inside = pixels[(pixels >= 0) & (pixels < n)]
        counts = np.multiply.outer(counts, np.bincount(inside, minlength=n))
    return counts
