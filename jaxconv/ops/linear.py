"""The fully connected part of a network: flatten and a matrix product."""

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
    """A weighted sum of all inputs for every output: ``y[n, o] = bias[o] + Σ_i x[n, i] · kernel[i, o]``.

    Raises:
        InputError: x still has spatial axes (flatten it), or the sizes do not meet.
        DtypeError: integers, or different dtypes.

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
            f"x has {x.shape[1]} values an example but kernel {kernel.shape} takes {kernel.shape[0]}; "
            "was it made for images of another size?"
        )
    return numerics.add_bias(jnp.matmul(x, kernel, precision=precision), bias, x.dtype)


@named_errors
def flatten(x: Shaped[Array, "n *rest"]) -> Shaped[Array, "n i"]:
    """Every example as one row, channels fastest: pixel (h, w, c) lands at ``(h·W + w)·C + c``.

    PyTorch flattens its (C, H, W) in another order, so a dense kernel cannot be carried over as it is.

    >>> flatten(jnp.arange(12).reshape(1, 2, 2, 3)).shape
    (1, 12)
    """
    x = checks.as_array(x=x)
    if x.ndim < 2:
        raise InputError(f"x {x.shape} should be (N, ...): add the batch axis, x[None]")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
