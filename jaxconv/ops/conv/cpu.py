"""The three passes on a CPU, each by forward convolutions that XLA hands to a library there (Eigen).

It does so only with images ``(N, *spatial, C)`` and kernels ``(*window, C, O)`` as they are, and comes close to what
the processor can do. The gradients that lax makes are convolutions with swapped axes, turned kernels and windows as
large as the image, and these it compiles as plain loops, above all in the body of a ``scan``. So here arrays are
turned first, and every pass is then one of these:

- the library's convolution;
- of one channel a group (depthwise), multiplications, for all groups at once;
- of several channels a group, one group after the other.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops import checks
from jaxconv.ops.channels import pair, swap_channels
from jaxconv.ops.conv import im2col
from jaxconv.ops.conv import lax as by_lax
from jaxconv.ops.conv.passes import Form
from jaxconv.ops.places import total
from jaxconv.ops.window import full_edges, layout, pad, taps
from jaxconv.shapes import ResolvedWindow, Window, resolve, span

FEW_GROUPS = 32  # more would take long to compile: each is a convolution of its own
FEW_FILTERS = 4  # of a channel that is a group
PART = 16  # images
MOST_PARTS = 16


def forward(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
    """``y[n, p, o] = Σ_u Σ_c  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o]``"""
    return _conv(checks.widened(x), checks.widened(kernel), form.window, form.groups, form.precision)


def input_gradient(kernel: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """``dx[n, q, c] = Σ_o Σ_{p, u: p·stride + u·dilation − low = q}  kernel[u, c, o] · dy[n, p, o]``

    Where the stride is s, a pixel of dx meets only every s-th tap, and q + low modulo s says which. So for each rest
    there is a convolution of dy with the taps of that rest, and their results lie between one another in dx: no
    product is with one of the zeros that dy would be stretched with.
    """
    kernel, dy = checks.widened(kernel), checks.widened(dy)
    window = form.window
    if max(window.stride) == 1 or max(window.dilation) > 1:
        stretch = [(0, 0, 0), *((0, 0, s - 1) for s in window.stride), (0, 0, 0)]
        edges = [
            full_edges(places, taps, s, d, low, n)
            for n, taps, s, (low, _), d, places in zip(form.size, *window, strict=True)
        ]
        return _full(kernel, lax.pad(dy, jnp.zeros((), dy.dtype), stretch), edges, form)
    lows = [low for low, _ in window.padding]
    sizes = [-(-(n + low) // s) for n, low, s in zip(form.size, lows, window.stride, strict=True)]
    phases = []
    for rest in itertools.product(*map(range, window.stride)):
        part = kernel[tuple(slice(r, None, s) for r, s in zip(rest, window.stride, strict=True))]
        if 0 in part.shape:  # more strides than taps: some pixels are never seen
            phases.append(jnp.zeros((len(dy), *sizes, form.groups * kernel.shape[-2]), dy.dtype))
        else:
            edges = [(t - 1, n - p) for t, n, p in zip(part.shape, sizes, window.out, strict=False)]
            phases.append(_full(part, dy, edges, form))
    return _interleaved(phases, window.stride, lows, form.size)


def kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """``d_kernel[u, c, o] = Σ_n Σ_p  x[n, p·stride + u·dilation − low, c] · dy[n, p, o]``

    A convolution too: dy slides over x, its places are the taps, and images and channels have changed their roles.
    A few images at a time, whose part of the work stays in the cache, and of which several go on at once.
    """
    x, dy = checks.widened(x), checks.widened(dy)
    groups, c, filters = form.groups, x.shape[-1] // form.groups, dy.shape[-1] // form.groups
    if groups > 1 and c == 1 and filters <= FEW_FILTERS:
        seen = taps(pad(jnp.repeat(x, filters, axis=-1), form.window), form.window)
        return jnp.stack([_total_product(pixels, dy) for _, pixels in seen]).reshape(*form.window.size, 1, -1)
    if 1 < groups <= FEW_GROUPS:
        one = form._replace(groups=1)
        each = zip(jnp.split(x, groups, axis=-1), jnp.split(dy, groups, axis=-1), strict=True)
        return jnp.concatenate([kernel_gradient(*pair, one) for pair in each], axis=-1)
    if groups > 1 or not _has_library(x):
        seen = taps(pad(x, form.window), form.window)
        return jnp.stack([pair(pixels, dy, groups, form.precision) for _, pixels in seen]).reshape(
            *form.window.size, c, -1
        )
    parts = [_correlate(*part, form.window) for part in zip(_parts(x), _parts(dy), strict=True)]
    return functools.reduce(operator.add, parts)


def _conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    *_, c, features = kernel.shape
    filters = features // groups
    if groups > 1 and min(c, filters) == 1 and max(c, filters) <= FEW_FILTERS:
        seen = taps(pad(jnp.repeat(x, filters, axis=-1), window), window)
        row = (1,) * (x.ndim - 1) + (-1,)
        y = functools.reduce(operator.add, (pixels * kernel[u].T.reshape(row) for u, pixels in seen))
        return y if c == 1 else y.reshape(*y.shape[:-1], groups, c).sum(axis=-1)
    if 1 < groups <= FEW_GROUPS:
        each = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
        return jnp.concatenate([_conv(*pair, window, 1, precision) for pair in each], axis=-1)
    if groups > 1 or not _has_library(x):
        return im2col.conv(x, kernel, window, groups=groups, precision=precision)
    return by_lax.conv(x, kernel, window, groups=1, precision=precision)


def _has_library(x: jax.Array) -> bool:
    """In float64 XLA compiles plain loops; matrix products have a library there, too."""
    return x.dtype == jnp.float32


def _full(kernel: jax.Array, dy: jax.Array, edges: list[tuple[int, int]], form: Form) -> jax.Array:
    """dy with so many zeros around it (fewer than none cut off), correlated with the kernel rotated by 180°."""
    rotated = jnp.flip(swap_channels(kernel, form.groups), range(len(edges)))
    dy, padding = _cut(dy, edges)
    window = resolve(Window(kernel.shape[:-2], 1, padding, form.window.dilation), dy.shape[1:-1])
    return _conv(dy, rotated, window, form.groups, form.precision)


def _interleaved(phases: list[jax.Array], stride: tuple[int, ...], lows: list[int], size: tuple[int, ...]) -> jax.Array:
    """Pixels whose distance is a stride, put between those of the other phases, without the padding."""
    ndim, (n, *sizes, c) = len(size), phases[0].shape
    x = jnp.stack(phases).reshape(*stride, n, *sizes, c)
    x = x.transpose(ndim, *itertools.chain(*((ndim + 1 + i, i) for i in range(ndim))), 2 * ndim + 1)
    x = x.reshape(n, *(m * s for m, s in zip(sizes, stride, strict=True)), c)
    return lax.slice(x, (0, *lows, 0), (n, *(low + m for low, m in zip(lows, size, strict=True)), c))


def _parts(x: jax.Array) -> list[jax.Array]:
    """The batch in equal parts. Where it is cut up over devices, each has a share of every part."""
    most = min(MOST_PARTS, len(x) // PART)
    count = next((n for n in range(most, 1, -1) if len(x) % (n * jax.device_count()) == 0), 1)
    x = x.reshape(len(x) // count, count, *x.shape[1:])
    return [x[:, i] for i in range(count)]


def _correlate(x: jax.Array, dy: jax.Array, window: ResolvedWindow) -> jax.Array:
    reach = [
        span(places, stride) + span(taps, dilation) - 1
        for taps, stride, dilation, places in zip(window.size, window.stride, window.dilation, window.out, strict=True)
    ]
    edges = [(low, r - n - low) for r, n, (low, _) in zip(reach, x.shape[1:], window.padding, strict=False)]
    x, padding = _cut(x, edges)
    d_kernel = lax.conv_general_dilated(
        jnp.moveaxis(x, (0, -1), (-1, 0)),
        jnp.moveaxis(dy, 0, -2),
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=layout(len(edges)),
    )
    return jnp.moveaxis(d_kernel, 0, -2)


def _cut(x: jax.Array, edges: list[tuple[int, int]]) -> tuple[jax.Array, list[tuple[int, int]]]:
    """Cut off where an edge is negative, since the library knows of none; and the edges that remain."""
    if min(itertools.chain(*edges)) < 0:
        cuts = [(0, 0, 0), *((min(0, low), min(0, high), 0) for low, high in edges), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), cuts)
    return x, [(max(0, low), max(0, high)) for low, high in edges]


def _total_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """``Σ_n Σ_p x[n, p, c] · y[n, p, c]``, the first few rows at once: XLA multiplies and adds these in one loop."""
    rows = x.shape[1]
    share = next(n for n in range(min(rows, 16), 0, -1) if rows % n == 0)
    blocks = zip(jnp.split(x, share, axis=1), jnp.split(y, share, axis=1), strict=True)
    return total(functools.reduce(operator.add, (a * b for a, b in blocks)))
