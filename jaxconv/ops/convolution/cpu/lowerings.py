"""The input's gradient, by any lowering of the forward pass: a convolution of dy with the kernel rotated by 180°.

Where the stride is s, a pixel of dx meets only every s-th tap, and q + low modulo s says which. So for each rest there
is a convolution of dy with the taps of that rest, and their results lie between one another in dx: no product is with
one of the zeros that dy would be stretched with.
"""

import itertools
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.convolution.primitives import Form
from jaxconv.ops.numerics import swap_channels
from jaxconv.ops.sliding_window import full_edges
from jaxconv.shapes import ResolvedWindow, Window, resolve


class Conv(Protocol):
    """A forward pass."""

    def __call__(
        self, x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
    ) -> jax.Array: ...


def input_gradient(conv: Conv, kernel: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """``dx[n, q, c] = Σ_o Σ_{p, u: p·stride + u·dilation − low = q}  kernel[u, c, o] · dy[n, p, o]``"""
    window = form.window
    if max(window.stride) == 1 or max(window.dilation) > 1:
        stretch = [(0, 0, 0), *((0, 0, s - 1) for s in window.stride), (0, 0, 0)]
        edges = [
            full_edges(places, taps, s, d, low, n)
            for n, taps, s, (low, _), d, places in zip(form.size, *window, strict=True)
        ]
        return _full(conv, kernel, lax.pad(dy, jnp.zeros((), dy.dtype), stretch), edges, form)
    lows = [low for low, _ in window.padding]
    sizes = [-(-(n + low) // s) for n, low, s in zip(form.size, lows, window.stride, strict=True)]
    phases = []
    for rest in itertools.product(*map(range, window.stride)):
        part = kernel[tuple(slice(r, None, s) for r, s in zip(rest, window.stride, strict=True))]
        if 0 in part.shape:  # more strides than taps: some pixels are never seen
            phases.append(jnp.zeros((dy.shape[0], *sizes, form.groups * kernel.shape[-2]), dy.dtype))
        else:
            edges = [(t - 1, n - p) for t, n, p in zip(part.shape, sizes, window.out, strict=False)]
            phases.append(_full(conv, part, dy, edges, form))
    return _interleaved(phases, window.stride, lows, form.size)


def _full(conv: Conv, kernel: jax.Array, dy: jax.Array, edges: list[tuple[int, int]], form: Form) -> jax.Array:
    """dy with so many zeros around it (fewer than none cut off), correlated with the kernel rotated by 180°."""
    rotated = jnp.flip(swap_channels(kernel, form.groups), range(len(edges)))
    dy, padding = cut(dy, edges)
    window = resolve(Window(kernel.shape[:-2], 1, padding, form.window.dilation), dy.shape[1:-1])
    return conv(dy, rotated, window, groups=form.groups, precision=form.precision)


def _interleaved(phases: list[jax.Array], stride: tuple[int, ...], lows: list[int], size: tuple[int, ...]) -> jax.Array:
    """Pixels whose distance is a stride, put between those of the other phases, without the padding."""
    ndim, (n, *sizes, c) = len(size), phases[0].shape
    x = jnp.stack(phases).reshape(*stride, n, *sizes, c)
    x = x.transpose(ndim, *itertools.chain(*((ndim + 1 + i, i) for i in range(ndim))), 2 * ndim + 1)
    x = x.reshape(n, *(m * s for m, s in zip(sizes, stride, strict=True)), c)
    return lax.slice(x, (0, *lows, 0), (n, *(low + m for low, m in zip(lows, size, strict=True)), c))


def cut(x: jax.Array, edges: list[tuple[int, int]]) -> tuple[jax.Array, list[tuple[int, int]]]:
    """Cut off where an edge is negative, since the library knows of none; and the edges that remain."""
    if min(itertools.chain(*edges)) < 0:
        cuts = [(0, 0, 0), *((min(0, low), min(0, high), 0) for low, high in edges), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), cuts)
    return x, [(max(0, low), max(0, high)) for low, high in edges]
