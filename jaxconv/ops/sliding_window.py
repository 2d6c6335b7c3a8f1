"""Unrolled sliding windows: the loop over kernel offsets that convolution, pooling and their gradients share."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.shapes import ResolvedWindow, dilated_size


def kernel_offsets(size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Iterate over the kernel offsets of a window in row-major order.

    >>> list(kernel_offsets((2, 2)))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return itertools.product(*map(range, size))


def pad(x: jax.Array, window: ResolvedWindow, value: float = 0) -> jax.Array:
    """Pad x, on the high side also as far as the last window exceeds the input (``ceil_mode``)."""
    ends = [
        (out - 1) * stride + dilated_size(size, dilation) - low
        for size, stride, (low, _), dilation, out in zip(*window, strict=True)
    ]
    sizes = zip(x.shape[1:-1], window.padding, ends, strict=True)
    widths = [(low, max(high, end - n)) for n, (low, high), end in sizes]
    return jnp.pad(x, ((0, 0), *widths, (0, 0)), constant_values=value)


def tap_slices(x: jax.Array, window: ResolvedWindow) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """Iterate over the kernel offsets u with their strided slices of x: ``(u, x[:, p·stride + u·dilation, :])``.

    For one kernel offset, the pixels at all window positions p are a strided slice. There are as many slices as kernel
    offsets (9 for a 3×3 window), each of the size of the output.

    Args:
        x: ``(N, *spatial, C)``, padded.
        window: resolved window; ``window.out_size`` is the spatial size of every slice.
    """
    for offset in kernel_offsets(window.size):
        start = [u * dilation for u, dilation in zip(offset, window.dilation, strict=True)]
        stop = [
            a + (out - 1) * stride + 1 for a, out, stride in zip(start, window.out_size, window.stride, strict=True)
        ]
        yield offset, lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.stride, 1))


def scatter_strided(values: jax.Array, start: Sequence[int], stride: Sequence[int], size: Sequence[int]) -> jax.Array:
    """Place values in an image of zeros of shape ``size``: ``image[:, start + p·stride, :] = values[:, p, :]``.

    This is the transpose of one slice of :func:`tap_slices`. Values at positions outside the image, those of its
    padding, are dropped.

    >>> scatter_strided(jnp.array([1., 2., 3.])[None, :, None], [-1], [2], [5])[0, :, 0]
    Array([0., 2., 0., 3., 0.], dtype=float32)
    """
    spans = [(n - 1) * s + 1 for n, s in zip(values.shape[1:-1], stride, strict=True)]
    edges = [(a, n - a - length, s - 1) for a, n, length, s in zip(start, size, spans, stride, strict=True)]
    return lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def full_padding(positions: int, window: int, stride: int, dilation: int, low: int, out: int) -> tuple[int, int]:
    """Padding of the dilated output positions for which the rotated kernel gives ``out`` pixels, in one dimension.

    On the low side ``dilated_size − 1 − low`` pixels, so that the last kernel offset meets the first position at pixel
    0 ("full" convolution). On the high side the rest that ``out`` requires. A negative value crops.

    >>> full_padding(positions=2, window=3, stride=2, dilation=1, low=0, out=5)
    (2, 2)
    """
    extent = dilated_size(window, dilation)
    pad_low = extent - 1 - low
    return pad_low, out + extent - 1 - pad_low - ((positions - 1) * stride + 1)


def dimension_numbers(ndim: int) -> tuple[str, str, str]:
    """Return lax's dimension numbers of images, kernels and feature maps with ``ndim`` spatial dimensions.

    >>> dimension_numbers(2)
    ('NHWC', 'HWIO', 'NHWC')
    """
    spatial = "DHW"[3 - ndim :]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
