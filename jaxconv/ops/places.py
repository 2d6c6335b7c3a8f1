"""From one number a channel to every place of a batch, and back: broadcasting, and the sum that is its transpose.

XLA compiles a sum over images and pixels for a CPU as a chain of small windows, much slower than a product with a row
of ones, which it hands to a library. On a GPU or TPU the sum is as good, and is fused with what comes before it.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax


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
