"""Three lowerings of the passes on a CPU: library convolution, taps and matrix products.

- ``library_*``: forward convolutions, for which XLA calls a library, Eigen.
- ``taps_*``: elementwise multiplications, one per kernel offset over all pixels, which XLA fuses into one loop.
- ``products_*``: matrix products, for which XLA calls a library in every dtype.

Each lowering has a forward convolution and a gradient of the kernel. They share :func:`input_gradient`: the gradient of
x is a forward convolution of dy with the kernel rotated by 180°.
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
from jaxconv.ops.convolution.primitives import ConvSpec
from jaxconv.ops.numerics import grouped_outer_product, sum_per_channel, swap_channels
from jaxconv.ops.sliding_window import dimension_numbers, full_padding, pad, tap_slices
from jaxconv.shapes import ResolvedWindow, Window, dilated_size, is_int, resolve_window


class Conv(Protocol):
    """Type of a forward pass."""

    def __call__(
        self, x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
    ) -> jax.Array: ...


def input_gradient(conv: Conv, kernel: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of the input.

        dx[n, q, c] = Σ_o Σ_{p, u: p·stride + u·dilation − low = q}  kernel[u, c, o] · dy[n, p, o]

    With a stride and no dilation, the pixels of dx are split by their remainder modulo the stride into phases. Each
    phase is a convolution with stride 1 of dy with every stride-th kernel entry.
    """
    window = spec.window
    if max(window.stride) == 1 or max(window.dilation) > 1:
        interior = [(0, 0, 0), *((0, 0, s - 1) for s in window.stride), (0, 0, 0)]
        edges = [
            full_padding(positions, size, s, d, low, n)
            for n, size, s, (low, _), d, positions in zip(spec.size, *window, strict=True)
        ]
        return _full_conv(conv, kernel, lax.pad(dy, jnp.zeros((), dy.dtype), interior), edges, spec)
    lows = [low for low, _ in window.padding]
    sizes = [-(-(n + low) // s) for n, low, s in zip(spec.size, lows, window.stride, strict=True)]
    phases = []
    for remainders in itertools.product(*map(range, window.stride)):
        phase_kernel = kernel[tuple(slice(r, None, s) for r, s in zip(remainders, window.stride, strict=True))]
        if 0 in phase_kernel.shape:  # the stride exceeds the window: these pixels have no gradient
            phases.append(jnp.zeros((dy.shape[0], *sizes, spec.groups * kernel.shape[-2]), dy.dtype))
        else:
            edges = [(f - 1, n - p) for f, n, p in zip(phase_kernel.shape, sizes, window.out_size, strict=False)]
            phases.append(_full_conv(conv, phase_kernel, dy, edges, spec))
    return _interleave(phases, window.stride, lows, spec.size)


def _full_conv(conv: Conv, kernel: jax.Array, dy: jax.Array, edges: list[tuple[int, int]], spec: ConvSpec) -> jax.Array:
    """Pad dy with zeros (negative edges crop), and correlate it with the kernel rotated by 180°."""
    rotated = jnp.flip(swap_channels(kernel, spec.groups), range(len(edges)))
    dy, padding = crop_negative_edges(dy, edges)
    window = resolve_window(Window(kernel.shape[:-2], 1, padding, spec.window.dilation), dy.shape[1:-1])
    return conv(dy, rotated, window, groups=spec.groups, precision=spec.precision)


def _interleave(phases: list[jax.Array], stride: tuple[int, ...], lows: list[int], size: tuple[int, ...]) -> jax.Array:
    """Interleave the pixels of all phases, and crop the padding."""
    ndim, (n, *sizes, c) = len(size), phases[0].shape
    x = jnp.stack(phases).reshape(*stride, n, *sizes, c)
    x = x.transpose(ndim, *itertools.chain(*((ndim + 1 + i, i) for i in range(ndim))), 2 * ndim + 1)
    x = x.reshape(n, *(m * s for m, s in zip(sizes, stride, strict=True)), c)
    return lax.slice(x, (0, *lows, 0), (n, *(low + m for low, m in zip(lows, size, strict=True)), c))


def crop_negative_edges(x: jax.Array, edges: list[tuple[int, int]]) -> tuple[jax.Array, list[tuple[int, int]]]:
    """Crop x at negative edges, which the library does not support, and return the remaining padding."""
    if min(itertools.chain(*edges)) < 0:
        crops = [(0, 0, 0), *((min(0, low), min(0, high), 0) for low, high in edges), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), crops)
    return x, [(max(0, low), max(0, high)) for low, high in edges]


MIN_SUB_BATCH = 16  # images
MAX_SUB_BATCHES = 16


def library_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolve each group by lax, and concatenate the results."""
    outputs = [
        lax_conv(x_group, kernel_group, window, groups=1, precision=precision)
        for x_group, kernel_group in _by_group(x, kernel, groups)
    ]
    return jnp.concatenate(outputs, axis=-1)


def library_kernel_gradient(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of the kernel as a convolution of x with dy, in which the batch and channel axes swap roles.

    The batch is processed in sub-batches, which fit in the cache and run in parallel.
    """
    gradients = []
    for x_group, dy_group in _by_group(x, dy, spec.groups):
        sub_batches = zip(_split_batch(x_group), _split_batch(dy_group), strict=True)
        gradients.append(_sum(_correlate(x_part, dy_part, spec.window) for x_part, dy_part in sub_batches))
    return jnp.concatenate(gradients, axis=-1)


def _by_group(lhs: jax.Array, rhs: jax.Array, groups: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Iterate over the groups of two arrays, which are split along their last axis."""
    return zip(jnp.split(lhs, groups, axis=-1), jnp.split(rhs, groups, axis=-1), strict=True)


def _split_batch(x: jax.Array) -> list[jax.Array]:
    """Split the batch into sub-batches of equal size. On a sharded batch every device has a part of each sub-batch.

    A batch of symbolic size (``jax.export``) is not split.
    """
    size = x.shape[0]
    if not is_int(size):
        return [x]
    max_sub_batches = min(MAX_SUB_BATCHES, size // MIN_SUB_BATCH)
    num = next((n for n in range(max_sub_batches, 1, -1) if size % (n * jax.device_count()) == 0), 1)
    x = x.reshape(size // num, num, *x.shape[1:])
    return [x[:, i] for i in range(num)]


def _correlate(x: jax.Array, dy: jax.Array, window: ResolvedWindow) -> jax.Array:
    """Correlate x with dy: stride and dilation swap roles, and so do batch and channels."""
    input_sizes = [
        dilated_size(positions, stride) + dilated_size(size, dilation) - 1
        for size, stride, dilation, positions in zip(
            window.size, window.stride, window.dilation, window.out_size, strict=True
        )
    ]
    edges = [(low, m - n - low) for m, n, (low, _) in zip(input_sizes, x.shape[1:], window.padding, strict=False)]
    x, padding = crop_negative_edges(x, edges)
    d_kernel = lax.conv_general_dilated(
        jnp.moveaxis(x, (0, -1), (-1, 0)),
        jnp.moveaxis(dy, 0, -2),
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=dimension_numbers(len(edges)),
    )
    return jnp.moveaxis(d_kernel, 0, -2)


def products_kernel_gradient(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of the kernel: one matrix product per kernel offset, or for one channel a single product of all."""
    slices = [pixels for _, pixels in tap_slices(pad(x, spec.window), spec.window)]
    if x.shape[-1] > 1:
        products = [grouped_outer_product(pixels, dy, spec.groups, spec.precision) for pixels in slices]
    else:  # batched over images, so that the pixels of an image stay in the cache
        n, num_positions = x.shape[0], math.prod(spec.window.out_size)
        rows = jnp.stack([pixels.reshape(n, num_positions) for pixels in slices], axis=1)
        dy_columns = dy.reshape(n, num_positions, dy.shape[-1])
        products = [jnp.matmul(rows, dy_columns, precision=spec.precision).sum(axis=0)]
    return jnp.stack(products).reshape(*spec.window.size, x.shape[-1] // spec.groups, dy.shape[-1])


def taps_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Sum of elementwise products, for one group, or groups with one channel or one filter.

    ``precision`` is ignored: elementwise products are exact up to the dtype.
    """
    *_, c, features = kernel.shape
    row_shape = (1,) * (x.ndim - 1) + (-1,)

    def ungrouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        slices = tap_slices(pad(x, window), window)
        return _sum(pixels[..., i : i + 1] * kernel[u][i].reshape(row_shape) for u, pixels in slices for i in range(c))

    def per_group(x: jax.Array, kernel: jax.Array) -> jax.Array:
        slices = tap_slices(pad(_repeat_channels(x, features, groups), window), window)
        return _sum(pixels * kernel[u].T.reshape(row_shape) for u, pixels in slices)

    y = _compute_once(ungrouped if groups == 1 else per_group, x, kernel)
    return y if groups == 1 or c == 1 else y.reshape(*y.shape[:-1], groups, c).sum(axis=-1)


def taps_kernel_gradient(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of the kernel, for groups with one channel or one filter."""
    features, channels = dy.shape[-1], x.shape[-1] // spec.groups
    x = x if features == spec.groups else _repeat_channels(x, features, spec.groups)
    dy = dy if channels == 1 else jnp.repeat(dy, channels, axis=-1)
    slices = tap_slices(pad(x, spec.window), spec.window)
    sums = jnp.stack([_sum_of_products(pixels, dy) for _, pixels in slices])  # (offsets, pairs of channel and filter)
    return sums.reshape(*spec.window.size, -1, channels).swapaxes(-1, -2)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _repeat_channels(x: jax.Array, features: int, groups: int) -> jax.Array:
    """Repeat each channel once per filter of its group."""
    return jnp.repeat(x, features // groups, axis=-1)


def _compute_once(function: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
    """Compute ``function(*args)`` once.

    XLA would fuse the sum into each operation that uses it (activation, pooling, their gradients) and recompute it
    there. It does not fuse across the branches of a `cond`, even if both are the same.
    """
    return lax.cond(args[-1].ravel()[0] > 0, function, function, *args)


def _sum_of_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Compute ``Σ_n Σ_p x[n, p, c] · y[n, p, c]``, first over blocks of rows, which XLA fuses into one loop."""
    rows = x.shape[1]
    num_blocks = next(n for n in range(min(rows, 16), 0, -1) if rows % n == 0)
    blocks = zip(jnp.split(x, num_blocks, axis=1), jnp.split(y, num_blocks, axis=1), strict=True)
    return sum_per_channel(_sum(a * b for a, b in blocks))
