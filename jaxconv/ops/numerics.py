"""Sums in at least float32, over the channels of a group and over all positions, and their transposes.

On a CPU, XLA compiles a sum over images and pixels to a chain of small windows, which is much slower than a matrix
product with a row of ones, for which it calls a library. On a GPU or TPU the sum is as fast, and fuses with its input.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv.errors import DtypeError

# Up to this many input channels the sum over channels is unrolled. XLA turns a product with one column into a
# multiplication, and fuses the multiplications of all channels and kernel offsets into one loop over the output, where
# every matrix product would write the output again. To measure the gain, run experiments/bench_ops.py with
# MAX_UNROLLED_CHANNELS = 0: its rows of 1, 3 and 6 channels change.
MAX_UNROLLED_CHANNELS = 6


def grouped_matmul(x: jax.Array, kernel: jax.Array, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """``y[…, o] = Σ_c x[…, c] · kernel[c, o]``, within each group of channels and filters.

    Args:
        x: ``(…, groups · c)``.
        kernel: ``(c, O)``, the filters of the first group first.

    >>> grouped_matmul(jnp.array([1., 2., 3., 4.]), jnp.array([[1., 10.], [1., 10.]]), groups=2, precision=None)
    Array([ 3., 70.], dtype=float32)
    """
    c, features = kernel.shape
    if groups == 1 and c <= MAX_UNROLLED_CHANNELS:
        columns = (jnp.matmul(x[..., i : i + 1], kernel[i : i + 1], precision=precision) for i in range(c))
        return functools.reduce(operator.add, columns)
    if groups == 1:  # one product: with a group axis of size 1 XLA would transpose a copy of x
        return jnp.matmul(x, kernel, precision=precision)
    grouped = kernel.reshape(c, groups, features // groups)
    y = jnp.einsum("...gc,cgo->...go", x.reshape(*x.shape[:-1], groups, c), grouped, precision=precision)
    return y.reshape(*x.shape[:-1], features)


def grouped_outer_product(x: jax.Array, y: jax.Array, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """``kernel[c, o] = Σ x[…, c] · y[…, o]`` within each group: the kernel gradient of :func:`grouped_matmul`.

    >>> grouped_outer_product(jnp.array([[1., 2.]]), jnp.array([[3., 4.]]), groups=1, precision=None)
    Array([[3., 4.],
           [6., 8.]], dtype=float32)
    """
    if groups == 1:
        return jnp.einsum("...c,...o->co", x, y, precision=precision)
    c, features = x.shape[-1] // groups, y.shape[-1]
    x, grouped = x.reshape(*x.shape[:-1], groups, c), y.reshape(*y.shape[:-1], groups, features // groups)
    return jnp.einsum("...gc,...go->cgo", x, grouped, precision=precision).reshape(c, features)


def swap_channels(kernel: jax.Array, groups: int) -> jax.Array:
    """Swap the input and output channels: ``(*window, C // groups, O)`` to ``(*window, O // groups, C)``.

    >>> swap_channels(jnp.ones((3, 3, 2, 6)), groups=2).shape
    (3, 3, 3, 4)
    """
    *window, c, features = kernel.shape
    grouped = kernel.reshape(*window, c, groups, features // groups)
    return jnp.moveaxis(grouped, -1, -3).swapaxes(-1, -2).reshape(*window, features // groups, groups * c)


def sum_per_channel(x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Sum each channel over the batch and all pixels: ``Σ_n weight[n] Σ_p x[n, p, c]``.

    >>> sum_per_channel(jnp.ones((2, 3, 3, 4)), jnp.array([1., 0.5]))
    Array([13.5, 13.5, 13.5, 13.5], dtype=float32)
    """
    weight = jnp.ones(x.shape[0], x.dtype) if weight is None else weight.astype(x.dtype)

    def by_product(x: jax.Array, weight: jax.Array) -> jax.Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        row = jnp.broadcast_to(weight[:, None, None], (x.shape[0], 1, pixels.shape[1]))
        return jnp.matmul(row, pixels, precision="highest")[:, 0].sum(axis=0)

    def by_sum(x: jax.Array, weight: jax.Array) -> jax.Array:
        return (x.sum(axis=tuple(range(1, x.ndim - 1))) * weight[:, None]).sum(axis=0)

    return lax.platform_dependent(x, weight, cpu=by_product, default=by_sum)


def broadcast_per_channel(per_channel: jax.Array, like: jax.Array) -> jax.Array:
    """Broadcast ``per_channel[c]`` to ``(N, *spatial, C)``; the transpose is :func:`sum_per_channel`.

    >>> broadcast_per_channel(jnp.array([1., 2.]), jnp.zeros((1, 3, 2)))
    Array([[[1., 2.],
            [1., 2.],
            [1., 2.]]], dtype=float32)
    """

    def by_product(
        per_channel: jax.Array,
    ) -> jax.Array:  # a matrix product with one column, which XLA compiles to a broadcast
        column = jnp.ones((like.shape[0], math.prod(like.shape[1:-1]), 1), per_channel.dtype)
        rows = jnp.broadcast_to(per_channel, (like.shape[0], 1, len(per_channel)))
        return jnp.matmul(column, rows, precision="highest").reshape(like.shape)

    return lax.platform_dependent(
        per_channel, cpu=by_product, default=lambda per_channel: jnp.broadcast_to(per_channel, like.shape)
    )


def accumulator_dtype(x: jax.Array) -> jnp.dtype:
    """Return the dtype of sums, at least float32: a bfloat16 sum of ones stops at 256."""
    return jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype


def upcast(x: jax.Array) -> jax.Array:
    """Cast x to :func:`accumulator_dtype`, as the first operation, so that its gradient is summed in that dtype too."""
    return x.astype(accumulator_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def add_bias(y: jax.Array, bias: jax.Array | None, dtype: jnp.dtype) -> jax.Array:
    """Add one value per channel, in at least float32; its gradient is summed in at least float32 too."""
    if bias is None:
        return y.astype(dtype)
    bias = checks.as_array(bias=bias)
    if bias.dtype != dtype:
        raise DtypeError(f"x is {dtype} but bias is {bias.dtype}; cast one, bias.astype(x.dtype)")
    checks.per_channel_shape("bias", bias, y.shape[-1])
    return (upcast(y) + broadcast_per_channel(upcast(bias), y)).astype(dtype)
