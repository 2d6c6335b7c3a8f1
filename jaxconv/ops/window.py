"""A sliding window, unrolled: the one loop that convolution and pooling share."""

import itertools
from collections.abc import Iterator

import jax
from jax import lax

from jaxconv.shapes import ResolvedWindow


def taps(x: jax.Array, window: ResolvedWindow) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """For each tap u of the window, the pixel it meets at every place at once: ``(u, x[:, p·stride + u·dilation, :])``.

    Instead of moving one window over the image, hold one tap still and take every pixel that it will ever meet: a
    strided slice. There are as many slices as taps (9 for a 3×3 window), each the size of the output.

    Args:
        x: ``(N, *spatial, C)``, padded already.
        window: how it slides; ``window.out`` is the spatial size of every slice.
    """
    for tap in itertools.product(*map(range, window.size)):
        start = [u * dilation for u, dilation in zip(tap, window.dilation, strict=True)]
        stop = [a + (out - 1) * stride + 1 for a, out, stride in zip(start, window.out, window.stride, strict=True)]
        yield tap, lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.stride, 1))
