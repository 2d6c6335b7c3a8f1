"""The sum over channels, which every tap of a convolution takes: a matrix product, one for each group of channels."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax

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
