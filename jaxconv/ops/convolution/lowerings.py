"""The five lowerings of convolution: one sum, computed in five ways.

    y[n, p, o] = Σ_u Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o]

A lowering takes an image, a kernel and a resolved window. It returns the same array as the others, but for rounding.
The last functions are the three passes as lax computes them, for the primitives of :mod:`jaxconv.ops.convolution`.
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
from jaxconv.ops.convolution.primitives import Form, Lowering, shape_of
from jaxconv.ops.numerics import mix
from jaxconv.ops.sharding import varying_alike
from jaxconv.ops.sliding_window import layout, pad, tap_numbers, taps
from jaxconv.shapes import ResolvedWindow, dilated_size, tap_indices

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO


def explicit_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution by hand: the sum over taps, as the formula is written.

        y[n, p, o] = Σ_u  ( Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o] )

    The sum over u is a Python loop over the window's taps (9 for a 3×3 kernel). For one tap, every output pixel meets
    one input pixel, so the sum over c is one matrix product of all those pixels with ``kernel[u]``. ``jax.grad``
    differentiates it as it stands: slices, products and sums.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    y = jnp.zeros((), x.dtype)
    for u, pixels in taps(pad(x, window), window):
        y += mix(pixels, kernel[u], groups, precision)
    return y


def fft_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution through the Fourier transform: a sum over taps becomes one product a frequency.

        ŷ[n, f, o] = Σ_c  x̂[n, f, c] · conj(k̂[f, c, o])          y = the inverse transform of ŷ

    The cost does not depend on the kernel's size, so it is fastest for very large kernels; for 3×3 it only instructs.
    The transform treats the image as if its borders met, so a window that hangs over the end comes round to the start.
    Such positions are left out: a window of span s fits at the first L − s + 1 of L pixels.

    Every frequency is a sum over the whole image, so rounding is relative to its largest pixel: beside one of 10⁸ a
    float32 sum of ones is lost, and a NaN is everywhere.

    Source: Mathieu et al., 2013, https://arxiv.org/abs/1312.5851.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    x = pad(x, window)
    length, c, features = x.shape[1:-1], kernel.shape[-2], kernel.shape[-1]
    # Zeros between the taps (dilation) and after the last, so that the kernel is as large as the image.
    zeros = jnp.zeros((), kernel.dtype)
    reaches = map(dilated_size, window.size, window.dilation)
    gaps = [(0, n - reach, d - 1) for n, reach, d in zip(length, reaches, window.dilation, strict=True)]
    kernel = lax.pad(kernel, zeros, [*gaps, (0, 0, 0), (0, 0, 0)])

    axes = tuple(range(1, x.ndim - 1))
    waves = jnp.fft.rfftn(x, axes=axes)
    waves = waves.reshape(*waves.shape[:-1], groups, c)
    response = jnp.conj(jnp.fft.rfftn(kernel, axes=tuple(a - 1 for a in axes)))
    response = response.reshape(*response.shape[:-1], groups, features // groups)
    product = jnp.einsum("n...gc,...cgo->n...go", waves, response, precision=precision)
    y = jnp.fft.irfftn(product.reshape(*product.shape[:-2], features), s=length, axes=axes)
    last = [(out - 1) * stride + 1 for out, stride in zip(window.out_size, window.stride, strict=True)]
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *last, features), (1, *window.stride, 1))


def im2col_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as one matrix product: every window laid out as a row, "image to columns".

        y[n, p, o] = Σ_k  patches[n, p, k] · matrix[k, o]        k runs over the taps u and the channels c together

    The patches repeat each pixel once for every tap that meets it (9 times for a 3×3 kernel): memory is the price of
    doing all the work in one product, which processors do best. A 1×1 kernel has one tap, whose slice of x is the
    patches already, so nothing is repeated.

    Source: Chellapilla et al., 2006, https://inria.hal.science/inria-00112631.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    *size, c, features = kernel.shape
    # All taps of the first group, then all of the next: the order of the matrix's rows.
    columns = [pixels.reshape(*pixels.shape[:-1], groups, c) for _, pixels in taps(pad(x, window), window)]
    patches = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    matrix = kernel.reshape(math.prod(size) * c, features)
    return mix(patches.reshape(*patches.shape[:-2], groups * len(matrix)), matrix, groups, precision)


def lax_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: ResolvedWindow,
    *,
    groups: int,
    precision: lax.PrecisionLike,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Convolution as XLA's own operation, ``lax.conv_general_dilated``, which GPU and TPU have hardware for.

    The sum is in at least float32 unless ``dtype`` gives another.
    """
    dtype = numerics.accumulator_dtype(x) if dtype is None else dtype
    if dtype != x.dtype and not supports_mixed_precision_conv_gradient():
        x, kernel = x.astype(dtype), kernel.astype(dtype)  # the same numbers, in more memory
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=layout(len(window.size)),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=dtype,
    )


MOST_NUMBERS = 2**26  # each takes 20 bytes, with its row and column


def toeplitz_matrix(kernel: jax.Array, size: tuple[int, ...], window: ResolvedWindow, groups: int) -> "BCOO":
    """The matrix that takes an image of ``size`` pixels to its feature maps, both raveled."""
    from jax.experimental import sparse  # slow to load, and importing jaxconv should not pay for it

    *_, c, features = kernel.shape
    most = max(math.prod(window.out_size) * kernel.size, math.prod(size) * c * groups)
    if most > MOST_NUMBERS:
        raise InputError(
            f"the matrix of a kernel {kernel.shape} at {' × '.join(map(str, window.out_size))} places "
            f"has up to {most:,} "
            f"numbers, or columns, and at most {MOST_NUMBERS:,} can be: take smaller images or another impl"
        )
    rows, columns, taps = (np.concatenate(part) for part in zip(*_meetings(window, size), strict=True))
    # Wherever a place and a pixel meet, each filter is connected to the channels of its group.
    o, k = np.arange(features)[None, :, None], np.arange(c)[None, None, :]
    neuron = rows[:, None, None] * features + o
    input = columns[:, None, None] * c * groups + o // (features // groups) * c + k
    where = np.stack(np.broadcast_arrays(neuron, input), axis=-1).reshape(-1, 2)
    weights = kernel.reshape(-1, c, features).transpose(0, 2, 1)[taps]
    shape = (math.prod(window.out_size) * features, math.prod(size) * c * groups)
    return sparse.BCOO((weights.ravel(), jnp.asarray(where, jnp.int32)), shape=shape)


def _meetings(window: ResolvedWindow, size: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each tap, the places and the pixels that it joins, as flat indices; what falls on padding is no pixel."""
    pixels = tap_indices(window)
    for tap in tap_numbers(window.size):
        places, met = [], []
        for axis, u in enumerate(tap):
            real = np.flatnonzero((pixels[axis][:, u] >= 0) & (pixels[axis][:, u] < size[axis]))
            places.append(real)
            met.append(pixels[axis][real, u])
        rows = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), window.out_size).ravel()
        columns = np.ravel_multi_index(np.meshgrid(*met, indexing="ij"), size).ravel()
        yield rows, columns, np.full(rows.size, np.ravel_multi_index(tap, window.size))


def toeplitz_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as a fully connected layer: one large matrix, nearly empty, whose few numbers repeat.

        y.ravel() = convolution_matrix(kernel, input_shape) @ x.ravel()

    Each output is a neuron connected to the pixels of its window and to no other (sparse connectivity), and all neurons
    of one feature map have the same weights (weight sharing). The matrix of a one-dimensional convolution is constant
    along its diagonals: a Toeplitz matrix. This lowering instructs and is not fast.
    """
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    connections = toeplitz_matrix(kernel, x.shape[1:-1], window, groups)
    neurons, inputs = connections.indices.T
    pixels = x.reshape(x.shape[0], math.prod(x.shape[1:])).T
    # The product written out, because jax's own has no gradient on meshes of Explicit axes.
    y = jax.ops.segment_sum(connections.data[:, None] * pixels[inputs], neurons, connections.shape[0])
    return y.T.reshape(x.shape[0], *window.out_size, kernel.shape[-1])


def lax_forward(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
    """The result has the dtype of its factors: what the hardware adds up in float32 is rounded before the bias.

    XLA for NVIDIA has no convolution whose result is wider than its factors: it would widen these and multiply in
    float32.
    """
    return lax_conv(x, kernel, form.window, groups=form.groups, precision=form.precision, dtype=x.dtype)


def lax_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    return _transposed(lambda kernel: lax_forward(x, kernel, form), shape_of("kernel", x.shape, dy.shape, form), dy)


def lax_input_gradient(kernel: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    return _transposed(lambda x: lax_forward(x, kernel, form), shape_of("x", kernel.shape, dy.shape, form), dy)


def _transposed(linear: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dy: jax.Array) -> jax.Array:
    """Under ``shard_map`` of an array that varies as dy does: of one that does not, it would be a sum over devices."""
    like, dy = varying_alike(jnp.zeros(shape, dy.dtype), dy)
    (gradient,) = jax.linear_transpose(linear, like)(dy)
    return gradient


LAX_PASSES: dict[str, Lowering] = {"y": lax_forward, "kernel": lax_kernel_gradient, "x": lax_input_gradient}
