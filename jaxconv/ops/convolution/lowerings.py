"""The five lowerings of convolution.

    y[n, p, o] = Σ_u Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o]

A lowering takes images, a kernel and a resolved window. All lowerings return the same array up to rounding. The last
functions are the three passes in terms of lax, for :mod:`jaxconv.ops.convolution.primitives`.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv._compat import supports_mixed_precision_conv_gradient
from jaxconv.errors import InputError
from jaxconv.ops import numerics
from jaxconv.ops.convolution.primitives import ConvSpec, Lowering, shape_of
from jaxconv.ops.numerics import grouped_matmul
from jaxconv.ops.sharding import align_varying_axes
from jaxconv.ops.sliding_window import dimension_numbers, kernel_offsets, pad, tap_slices
from jaxconv.shapes import ResolvedWindow, dilated_size, tap_indices

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO


def explicit_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as an explicit sum over kernel offsets u:

        y[n, p, o] = Σ_u  ( Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o] )

    The sum over u is a Python loop over the kernel offsets (9 for a 3×3 kernel). For one offset each output pixel uses
    one input pixel, so the sum over c is one matrix product of all these pixels with ``kernel[u]``. ``jax.grad``
    differentiates the slices, products and sums without a custom rule.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    y = jnp.zeros((), x.dtype)
    for u, pixels in tap_slices(pad(x, window), window):
        y += grouped_matmul(pixels, kernel[u], groups, precision)
    return y


def fft_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution by the Fourier transform: the sum over kernel offsets becomes one product per frequency.

        ŷ[n, f, o] = Σ_c  x̂[n, f, c] · conj(k̂[f, c, o])          y = the inverse transform of ŷ

    The cost does not depend on the size of the kernel, so this is fastest for very large kernels; for 3×3 it is only
    instructive. The transform is periodic, so windows that exceed the image wrap around. These positions are dropped: a
    window of dilated size s fits at the first L − s + 1 of L pixels.

    Each frequency is a sum over the whole image, so rounding is relative to its largest pixel: next to a pixel of 10⁸ a
    float32 sum of ones is lost, and one NaN makes the whole output NaN.

    Source: Mathieu et al., 2013, https://arxiv.org/abs/1312.5851.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    x = pad(x, window)
    length, c, features = x.shape[1:-1], kernel.shape[-2], kernel.shape[-1]
    # Insert zeros for the dilation, and append zeros up to the size of the image.
    zeros = jnp.zeros((), kernel.dtype)
    extents = map(dilated_size, window.size, window.dilation)
    pads = [(0, n - extent, d - 1) for n, extent, d in zip(length, extents, window.dilation, strict=True)]
    kernel = lax.pad(kernel, zeros, [*pads, (0, 0, 0), (0, 0, 0)])

    axes = tuple(range(1, x.ndim - 1))
    x_hat = jnp.fft.rfftn(x, axes=axes)
    x_hat = x_hat.reshape(*x_hat.shape[:-1], groups, c)
    k_hat = jnp.conj(jnp.fft.rfftn(kernel, axes=tuple(a - 1 for a in axes)))
    k_hat = k_hat.reshape(*k_hat.shape[:-1], groups, features // groups)
    product = jnp.einsum("n...gc,...cgo->n...go", x_hat, k_hat, precision=precision)
    y = jnp.fft.irfftn(product.reshape(*product.shape[:-2], features), s=length, axes=axes)
    last = [(out - 1) * stride + 1 for out, stride in zip(window.out_size, window.stride, strict=True)]
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *last, features), (1, *window.stride, 1))


def im2col_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as one matrix product (im2col, "image to columns"): each window becomes a row of a matrix.

        y[n, p, o] = Σ_k  patches[n, p, k] · matrix[k, o]        k indexes pairs of kernel offset u and channel c

    The patches repeat each pixel once per kernel offset (9 times for a 3×3 kernel). This costs memory, and does all the
    work in one matrix product, which processors do best. For a 1×1 kernel the patches are a slice of x, and no pixel is
    repeated.

    Source: Chellapilla et al., 2006, https://inria.hal.science/inria-00112631.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    *size, c, features = kernel.shape
    # Order of the rows of the matrix: all kernel offsets of the first group, then those of the next.
    columns = [pixels.reshape(*pixels.shape[:-1], groups, c) for _, pixels in tap_slices(pad(x, window), window)]
    patches = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    matrix = kernel.reshape(math.prod(size) * c, features)
    return grouped_matmul(patches.reshape(*patches.shape[:-2], groups * len(matrix)), matrix, groups, precision)


def lax_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: ResolvedWindow,
    *,
    groups: int,
    precision: lax.PrecisionLike,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Convolution as the operation of XLA, ``lax.conv_general_dilated``, with hardware support on GPU and TPU.

    The sum is in at least float32 unless ``dtype`` gives another.
    """
    dtype = numerics.accumulator_dtype(x) if dtype is None else dtype
    if dtype != x.dtype and not supports_mixed_precision_conv_gradient():
        x, kernel = x.astype(dtype), kernel.astype(dtype)  # exact, but takes more memory
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=dimension_numbers(len(window.size)),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=dtype,
    )


MAX_ENTRIES = 2**26  # an entry takes 20 bytes, including its row and column index


def toeplitz_matrix(kernel: jax.Array, size: tuple[int, ...], window: ResolvedWindow, groups: int) -> "BCOO":
    """Sparse matrix that maps a raveled image of spatial ``size`` to its raveled feature maps."""
    from jax.experimental import sparse  # imported here, because it would slow down `import jaxconv`

    *_, c, features = kernel.shape
    max_entries = max(math.prod(window.out_size) * kernel.size, math.prod(size) * c * groups)
    if max_entries > MAX_ENTRIES:
        raise InputError(
            f"the matrix of kernel {kernel.shape} for {' × '.join(map(str, window.out_size))} output pixels has up to "
            f"{max_entries:,} entries or columns, and at most {MAX_ENTRIES:,} are supported: use smaller images or "
            "another impl"
        )
    rows, columns, taps = (np.concatenate(indices) for indices in zip(*_connections(window, size), strict=True))
    # For each connected pair of output position and pixel, each filter is connected to all channels of its group.
    o, k = np.arange(features)[None, :, None], np.arange(c)[None, None, :]
    neuron = rows[:, None, None] * features + o
    input = columns[:, None, None] * c * groups + o // (features // groups) * c + k
    indices = np.stack(np.broadcast_arrays(neuron, input), axis=-1).reshape(-1, 2)
    weights = kernel.reshape(-1, c, features).transpose(0, 2, 1)[taps]
    shape = (math.prod(window.out_size) * features, math.prod(size) * c * groups)
    return sparse.BCOO((weights.ravel(), jnp.asarray(indices, jnp.int32)), shape=shape)


def _connections(window: ResolvedWindow, size: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Iterate over the kernel offsets: flat indices of the output positions, pixels and offset, without padding."""
    pixels = tap_indices(window)
    for offset in kernel_offsets(window.size):
        outputs, inputs = [], []
        for axis, u in enumerate(offset):
            positions = np.flatnonzero((pixels[axis][:, u] >= 0) & (pixels[axis][:, u] < size[axis]))
            outputs.append(positions)
            inputs.append(pixels[axis][positions, u])
        rows = np.ravel_multi_index(np.meshgrid(*outputs, indexing="ij"), window.out_size).ravel()
        columns = np.ravel_multi_index(np.meshgrid(*inputs, indexing="ij"), size).ravel()
        yield rows, columns, np.full(rows.size, np.ravel_multi_index(offset, window.size))


def toeplitz_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as a fully connected layer: a large sparse matrix with shared entries.

        y.ravel() = convolution_matrix(kernel, input_shape) @ x.ravel()

    Each output is a neuron that is connected only to the pixels of its window (sparse connectivity), and all neurons of
    a feature map have the same weights (weight sharing). The matrix of a one-dimensional convolution is constant along
    its diagonals: a Toeplitz matrix. This lowering is instructive and slow.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    connections = toeplitz_matrix(kernel, x.shape[1:-1], window, groups)
    neurons, inputs = connections.indices.T
    pixels = x.reshape(x.shape[0], math.prod(x.shape[1:])).T
    # Not `connections @ pixels`, which has no gradient on meshes of Explicit axes.
    y = jax.ops.segment_sum(connections.data[:, None] * pixels[inputs], neurons, connections.shape[0])
    return y.T.reshape(x.shape[0], *window.out_size, kernel.shape[-1])


def lax_forward(x: jax.Array, kernel: jax.Array, spec: ConvSpec) -> jax.Array:
    """Forward pass by lax. The output has the dtype of the inputs, so float32 sums are rounded before the bias.

    On NVIDIA GPUs XLA has no convolution with an output wider than its inputs: it would cast these to float32 and
    multiply in float32.
    """
    return lax_conv(x, kernel, spec.window, groups=spec.groups, precision=spec.precision, dtype=x.dtype)


def lax_kernel_gradient(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of the kernel, the transpose of :func:`lax_forward` in its kernel."""
    return _transposed(lambda kernel: lax_forward(x, kernel, spec), shape_of("kernel", x.shape, dy.shape, spec), dy)


def lax_input_gradient(kernel: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """Gradient of x, the transpose of :func:`lax_forward` in its images."""
    return _transposed(lambda x: lax_forward(x, kernel, spec), shape_of("x", kernel.shape, dy.shape, spec), dy)


def _transposed(linear: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dy: jax.Array) -> jax.Array:
    """Transpose a linear function; under ``shard_map`` without a sum over devices, since its input varies like dy."""
    like, dy = align_varying_axes(jnp.zeros(shape, dy.dtype), dy)
    (gradient,) = jax.linear_transpose(linear, like)(dy)
    return gradient


LAX_PASSES: dict[str, Lowering] = {"y": lax_forward, "kernel": lax_kernel_gradient, "x": lax_input_gradient}
