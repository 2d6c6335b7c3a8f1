"""The sum over channels, which every tap of a convolution takes: a matrix product, one for each group of channels."""

import jax
import jax.numpy as jnp
from jax import lax


def mix(x: jax.Array, kernel: jax.Array, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """``y[…, o] = Σ_c x[…, c] · kernel[c, o]``, each group of channels with its own share of the filters.

    Args:
        x: ``(…, groups · c)``.
        kernel: ``(c, O)``, the filters of the first group first.

    >>> mix(jnp.array([1., 2., 3., 4.]), jnp.array([[1., 10.], [1., 10.]]), groups=2, precision=None)
    Array([ 3., 70.], dtype=float32)
    """
    c, features = kernel.shape
    if c == 1:  # nothing to add up: a product that XLA fuses with what is around it
        y = x[..., None] * kernel.reshape((1,) * (x.ndim - 1) + (groups, features // groups))
        return y.reshape(*x.shape[:-1], features)
    if groups == 1:  # as one product; with a group axis of 1 XLA would copy x to turn it
        return jnp.matmul(x, kernel, precision=precision)
    grouped = kernel.reshape(c, groups, features // groups)
    y = jnp.einsum("...gc,cgo->...go", x.reshape(*x.shape[:-1], groups, c), grouped, precision=precision)
    return y.reshape(*x.shape[:-1], features)


def pair(x: jax.Array, y: jax.Array, groups: int) -> jax.Array:
    """``kernel[c, o] = Σ x[…, c] · y[…, o]`` for every channel and filter of one group: the other way round of mix.

    >>> pair(jnp.array([[1., 2.]]), jnp.array([[3., 4.]]), groups=1)
    Array([[3., 4.],
           [6., 8.]], dtype=float32)
    """
    if groups == 1:
        return jnp.einsum("...c,...o->co", x, y)
    c, features = x.shape[-1] // groups, y.shape[-1]
    x, grouped = x.reshape(*x.shape[:-1], groups, c), y.reshape(*y.shape[:-1], groups, features // groups)
    return jnp.einsum("...gc,...go->cgo", x, grouped).reshape(c, features)
