"""Three lowerings of the passes on a CPU: a library's convolution, taps and matrix products.

- ``library_*``: forward convolutions that XLA hands to a library, Eigen.
- ``taps_*``: multiplications, one tap for all pixels at once, which XLA compiles as one loop.
- ``products_*``: matrix products, which have a library in every dtype.

Each has a forward convolution and a gradient of the kernel. :func:`input_gradient` is common to all three: the gradient
of x is a forward convolution of dy with the kernel rotated by 180°.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.convolution.lowerings import lax_conv
from jaxconv.ops.convolution.primitives import Form
from jaxconv.ops.numerics import pair, swap_channels, total
from jaxconv.ops.sliding_window import full_edges, layout, pad, taps
from jaxconv.shapes import ResolvedWindow, Window, dilated_size, is_int, resolve_window


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
            edges = [(t - 1, n - p) for t, n, p in zip(part.shape, sizes, window.out_size, strict=False)]
            phases.append(_full(conv, part, dy, edges, form))
    return _interleaved(phases, window.stride, lows, form.size)


def _full(conv: Conv, kernel: jax.Array, dy: jax.Array, edges: list[tuple[int, int]], form: Form) -> jax.Array:
    """dy with so many zeros around it (fewer than none cut off), correlated with the kernel rotated by 180°."""
    rotated = jnp.flip(swap_channels(kernel, form.groups), range(len(edges)))
    dy, padding = cut(dy, edges)
    window = resolve_window(Window(kernel.shape[:-2], 1, padding, form.window.dilation), dy.shape[1:-1])
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


PART = 16  # images
MOST_PARTS = 16


def library_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    each = [lax_conv(*pair, window, groups=1, precision=precision) for pair in _by_group(x, kernel, groups)]
    return jnp.concatenate(each, axis=-1)


def library_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """A convolution too: dy slides over x, its places are the taps, and images and channels have changed their roles.

    A few images at a time, whose part of the work stays in the cache, and of which several go on at once.
    """
    each = []
    for x_of_one, dy_of_one in _by_group(x, dy, form.groups):
        parts = zip(_parts(x_of_one), _parts(dy_of_one), strict=True)
        each.append(functools.reduce(operator.add, (_correlate(*part, form.window) for part in parts)))
    return jnp.concatenate(each, axis=-1)


def _by_group(first: jax.Array, second: jax.Array, groups: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    return zip(jnp.split(first, groups, axis=-1), jnp.split(second, groups, axis=-1), strict=True)


def _parts(x: jax.Array) -> list[jax.Array]:
    """The batch in equal parts. Where it is cut up over devices, each has a share of every part.

    A batch of any size (a symbol of ``jax.export``) is one part.
    """
    size = x.shape[0]
    if not is_int(size):
        return [x]
    most = min(MOST_PARTS, size // PART)
    count = next((n for n in range(most, 1, -1) if size % (n * jax.device_count()) == 0), 1)
    x = x.reshape(size // count, count, *x.shape[1:])
    return [x[:, i] for i in range(count)]


def _correlate(x: jax.Array, dy: jax.Array, window: ResolvedWindow) -> jax.Array:
    reach = [
        dilated_size(places, stride) + dilated_size(taps, dilation) - 1
        for taps, stride, dilation, places in zip(
            window.size, window.stride, window.dilation, window.out_size, strict=True
        )
    ]
    edges = [(low, r - n - low) for r, n, (low, _) in zip(reach, x.shape[1:], window.padding, strict=False)]
    x, padding = cut(x, edges)
    d_kernel = lax.conv_general_dilated(
        jnp.moveaxis(x, (0, -1), (-1, 0)),
        jnp.moveaxis(dy, 0, -2),
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=layout(len(edges)),
    )
    return jnp.moveaxis(d_kernel, 0, -2)


def products_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """A product for each tap; of a single channel, where each would be one row of it, all taps in one product."""
    seen = [pixels for _, pixels in taps(pad(x, form.window), form.window)]
    if x.shape[-1] > 1:
        products = [pair(pixels, dy, form.groups, form.precision) for pixels in seen]
    else:  # an image at a time, whose pixels are still in the cache
        n, places = x.shape[0], math.prod(form.window.out_size)
        rows = jnp.stack([pixels.reshape(n, places) for pixels in seen], axis=1)
        products = [jnp.matmul(rows, dy.reshape(n, places, dy.shape[-1]), precision=form.precision).sum(axis=0)]
    return jnp.stack(products).reshape(*form.window.size, x.shape[-1] // form.groups, dy.shape[-1])


def taps_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """In one group, or with one channel or one filter in each; multiplications know no other precision."""
    *_, c, features = kernel.shape
    row = (1,) * (x.ndim - 1) + (-1,)

    def of_one(x: jax.Array, kernel: jax.Array) -> jax.Array:
        seen = taps(pad(x, window), window)
        return _sum(pixels[..., i : i + 1] * kernel[u][i].reshape(row) for u, pixels in seen for i in range(c))

    def of_each(x: jax.Array, kernel: jax.Array) -> jax.Array:
        seen = taps(pad(_for_each_filter(x, features, groups), window), window)
        return _sum(pixels * kernel[u].T.reshape(row) for u, pixels in seen)

    y = _apart(of_one if groups == 1 else of_each, x, kernel)
    return y if groups == 1 or c == 1 else y.reshape(*y.shape[:-1], groups, c).sum(axis=-1)


def taps_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """With one channel or one filter in each group."""
    features, channels = dy.shape[-1], x.shape[-1] // form.groups
    x = x if features == form.groups else _for_each_filter(x, features, form.groups)
    dy = dy if channels == 1 else jnp.repeat(dy, channels, axis=-1)
    seen = taps(pad(x, form.window), form.window)
    totals = jnp.stack([_total_product(pixels, dy) for _, pixels in seen])  # (taps, a channel and filter that meet)
    return totals.reshape(*form.window.size, -1, channels).swapaxes(-1, -2)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _for_each_filter(x: jax.Array, features: int, groups: int) -> jax.Array:
    """Each channel as often as it has filters."""
    return jnp.repeat(x, features // groups, axis=-1)


def _apart(function: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
    """``function(*args)``, computed once.

    XLA fuses such a sum into everything that uses it, and so computes it again for each: for the activation, for the
    pooling, for their gradients. It does not look into the branches of a condition, not even if they are the same.
    """
    return lax.cond(args[-1].ravel()[0] > 0, function, function, *args)


def _total_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """``Σ_n Σ_p x[n, p, c] · y[n, p, c]``, the first few rows at once: XLA multiplies and adds these in one loop."""
    rows = x.shape[1]
    share = next(n for n in range(min(rows, 16), 0, -1) if rows % n == 0)
    blocks = zip(jnp.split(x, share, axis=1), jnp.split(y, share, axis=1), strict=True)
    return total(_sum(a * b for a, b in blocks))
