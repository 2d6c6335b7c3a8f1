"""Sums in at least float32, over the channels of a group and over all positions, and their transposes.

XLA compiles a sum over images and pixels for a CPU as a chain of small windows, much slower than a product with a row
of ones, which it hands to a library. On a GPU or TPU the sum is as good, and is fused with what comes before it.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv.errors import DtypeError

# Of so few channels the sum is written out too. XLA turns a product with one column into a multiplication, and fuses
# those of all channels and all taps into one loop over the output, where matrix products would each write it anew. To
# see what that is worth, run experiments/bench_ops.py with FEW = 0: its rows of 1, 3 and 6 channels change.
FEW = 6


def mix(x: jax.Array, kernel: jax.Array, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """``y[…, o] = Σ_c x[…, c] · kernel[c, o]``, each group of channels with its own share of the filters.

    Args:
        x: ``(…, groups · c)``.
        kernel: ``(c, O)``, the filters of the first group first.

    >>> mix(jnp.array([1., 2., 3., 4.]), jnp.array([[1., 10.], [1., 10.]]), groups=2, precision=None)
    Array([ 3., 70.], dtype=float32)
    """
    c, features = kernel.shape
    if groups == 1 and c <= FEW:
        columns = (jnp.matmul(x[..., i : i + 1], kernel[i : i + 1], precision=precision) for i in range(c))
        return functools.reduce(operator.add, columns)
    if groups == 1:  # as one product; with a group axis of 1 XLA would copy x to turn it
        return jnp.matmul(x, kernel, precision=precision)
    grouped = kernel.reshape(c, groups, features // groups)
    y = jnp.einsum("...gc,cgo->...go", x.reshape(*x.shape[:-1], groups, c), grouped, precision=precision)
    return y.reshape(*x.shape[:-1], features)


def pair(x: jax.Array, y: jax.Array, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """``kernel[c, o] = Σ x[…, c] · y[…, o]`` for every channel and filter of one group: the other way round of mix.

    >>> pair(jnp.array([[1., 2.]]), jnp.array([[3., 4.]]), groups=1, precision=None)
    Array([[3., 4.],
           [6., 8.]], dtype=float32)
    """
    if groups == 1:
        return jnp.einsum("...c,...o->co", x, y, precision=precision)
    c, features = x.shape[-1] // groups, y.shape[-1]
    x, grouped = x.reshape(*x.shape[:-1], groups, c), y.reshape(*y.shape[:-1], groups, features // groups)
    return jnp.einsum("...gc,...go->cgo", x, grouped, precision=precision).reshape(c, features)


def swap_channels(kernel: jax.Array, groups: int) -> jax.Array:
    """A kernel from C channels to O as one from O to C: ``(*window, C // groups, O)`` to ``(*window, O // groups, C)``.

    >>> swap_channels(jnp.ones((3, 3, 2, 6)), groups=2).shape
    (3, 3, 3, 4)
    """
    *window, c, features = kernel.shape
    grouped = kernel.reshape(*window, c, groups, features // groups)
    return jnp.moveaxis(grouped, -1, -3).swapaxes(-1, -2).reshape(*window, features // groups, groups * c)


def total(x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """The sum of each channel over the batch and every pixel: ``Σ_n weight[n] Σ_p x[n, p, c]``.

    >>> total(jnp.ones((2, 3, 3, 4)), jnp.array([1., 0.5]))
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


def spread(row: jax.Array, like: jax.Array) -> jax.Array:
    """``row[c]`` at every place of an array ``(N, *spatial, C)``; its gradient is :func:`total`.

    >>> spread(jnp.array([1., 2.]), jnp.zeros((1, 3, 2)))
    Array([[[1., 2.],
            [1., 2.],
            [1., 2.]]], dtype=float32)
    """

    def by_product(row: jax.Array) -> jax.Array:  # with one column, so that XLA makes a broadcast of it
        column = jnp.ones((like.shape[0], math.prod(like.shape[1:-1]), 1), row.dtype)
        rows = jnp.broadcast_to(row, (like.shape[0], 1, len(row)))
        return jnp.matmul(column, rows, precision="highest").reshape(like.shape)

    return lax.platform_dependent(row, cpu=by_product, default=lambda row: jnp.broadcast_to(row, like.shape))


def accumulator_dtype(x: jax.Array) -> jnp.dtype:
    """The dtype to add up in: a bfloat16 sum of ones stops at 256, so at least float32."""
    return jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype


def upcast(x: jax.Array) -> jax.Array:
    """x in the dtype to add up in: done before anything else, so that its gradient is added up in that too."""
    return x.astype(accumulator_dtype(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def add_bias(y: jax.Array, bias: jax.Array | None, dtype: jnp.dtype) -> jax.Array:
    """y plus one number a channel, added (and, backwards, its gradient added up) in at least float32."""
    if bias is None:
        return y.astype(dtype)
    bias = checks.as_array(bias=bias)
    if bias.dtype != dtype:
        raise DtypeError(f"x is {dtype} but bias is {bias.dtype}; cast one, bias.astype(x.dtype)")
    checks.per_channel_shape("bias", bias, y.shape[-1])
    return (upcast(y) + spread(upcast(bias), y)).astype(dtype)
