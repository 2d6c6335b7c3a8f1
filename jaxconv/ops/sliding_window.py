"""A sliding window, unrolled: the one loop that convolution and pooling share, there and back."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.shapes import ResolvedWindow, dilated_size


def tap_numbers(size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The taps of a window in reading order.

    >>> list(tap_numbers((2, 2)))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return itertools.product(*map(range, size))


def pad(x: jax.Array, window: ResolvedWindow, value: float = 0) -> jax.Array:
    """x with its padding, and on the high side as far as a last window hangs over the end (``ceil_mode``)."""
    reach = [
        (out - 1) * stride + dilated_size(taps, dilation) - low
        for taps, stride, (low, _), dilation, out in zip(*window, strict=True)
    ]
    sizes = zip(x.shape[1:-1], window.padding, reach, strict=True)
    widths = [(low, max(high, end - n)) for n, (low, high), end in sizes]
    return jnp.pad(x, ((0, 0), *widths, (0, 0)), constant_values=value)


def taps(x: jax.Array, window: ResolvedWindow) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """For each tap u of the window, the pixel it meets at every place at once: ``(u, x[:, p·stride + u·dilation, :])``.

    Instead of moving one window over the image, hold one tap still and take every pixel that it will ever meet: a
    strided slice. There are as many slices as taps (9 for a 3×3 window), each the size of the output.

    Args:
        x: ``(N, *spatial, C)``, padded already.
        window: how it slides; ``window.out_size`` is the spatial size of every slice.
    """
    for tap in tap_numbers(window.size):
        start = [u * dilation for u, dilation in zip(tap, window.dilation, strict=True)]
        stop = [
            a + (out - 1) * stride + 1 for a, out, stride in zip(start, window.out_size, window.stride, strict=True)
        ]
        yield tap, lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.stride, 1))


def put(values: jax.Array, start: Sequence[int], stride: Sequence[int], size: Sequence[int]) -> jax.Array:
    """The way back of a tap: an image of ``size``, zero but for ``image[:, start + p·stride, :] = values[:, p, :]``.

    What would land outside of the image (on its padding, before the conv) is left out.

    >>> put(jnp.array([1., 2., 3.])[None, :, None], [-1], [2], [5])[0, :, 0]
    Array([0., 2., 0., 3., 0.], dtype=float32)
    """
    spans = [(n - 1) * s + 1 for n, s in zip(values.shape[1:-1], stride, strict=True)]
    edges = [(a, n - a - length, s - 1) for a, n, length, s in zip(start, size, spans, stride, strict=True)]
    return lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def full_edges(places: int, taps: int, stride: int, dilation: int, low: int, out: int) -> tuple[int, int]:
    """What to add around places, stretched to one a stride, so that the rotated kernel makes ``out`` pixels of them.

    Before the first place ``span − 1`` pixels, less the ``low`` that were padding: the kernel's last tap meets it at
    pixel 0 ("full"). After the last as many as out asks for; either may be negative, which cuts off. One dimension.

    >>> full_edges(places=2, taps=3, stride=2, dilation=1, low=0, out=5)
    (2, 2)
    """
    before = dilated_size(taps, dilation) - 1 - low
    return before, out + dilated_size(taps, dilation) - 1 - before - ((places - 1) * stride + 1)


def layout(ndim: int) -> tuple[str, str, str]:
    """Our axes in lax's words: of images, kernels and feature maps with so many spatial dimensions.

    >>> layout(2)
    ('NHWC', 'HWIO', 'NHWC')
    """
    spatial = "DHW"[3 - ndim :]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
