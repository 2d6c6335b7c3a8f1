"""Fully connected layers: flatten and the matrix product."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics


@named_errors
def dense(
    x: Float[Array, "n i"],
    kernel: Float[Array, "i o"],
    bias: Float[Array, " o"] | None = None,
    *,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "n o"]:
    """Compute the affine map ``y[n, o] = bias[o] + Σ_i x[n, i] · kernel[i, o]``.

    Raises:
        InputError: if x still has spatial axes (flatten it first), or its size does not match the kernel.
        DtypeError: if an array holds integers, or the dtypes differ.

    >>> dense(jnp.array([[1., 2.]]), jnp.array([[1., 0.], [0., 3.]]), jnp.array([10., 20.]))
    Array([[11., 26.]], dtype=float32)
    """
    x, kernel = checks.as_arrays(x=x, kernel=kernel)
    if kernel.ndim != 2:
        raise InputError(f"kernel {kernel.shape} should be (inputs, outputs)")
    if x.ndim != 2:
        raise InputError(f"x {x.shape} should be (N, {kernel.shape[0]}): put flatten before it")
    checks.floating_dtype(x=x, kernel=kernel)
    if x.shape[1] != kernel.shape[0]:
        raise InputError(
            f"x has {x.shape[1]} values per example but kernel {kernel.shape} expects {kernel.shape[0]}; "
            "was it created for images of another size?"
        )
    return numerics.add_bias(jnp.matmul(x, kernel, precision=precision), bias, x.dtype)


@named_errors
def flatten(x: Shaped[Array, "n *rest"]) -> Shaped[Array, "n i"]:
    """Flatten each example, channels fastest: element (h, w, c) moves to index ``(h·W + w)·C + c``.

    PyTorch flattens (C, H, W) in another order, so the rows of a ported dense kernel must be permuted.

    >>> flatten(jnp.arange(12).reshape(1, 2, 2, 3)).shape
    (1, 12)
    """
    x = checks.as_array(x=x)
    if x.ndim < 2:
        raise InputError(f"x {x.shape} should be (N, ...): add the batch axis, x[None]")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
