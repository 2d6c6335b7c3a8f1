"""The fully connected part of a network: flatten, a matrix product, dropout."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxconv.errors import InputError
from jaxconv.ops import checks


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
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if kernel.ndim != 2:
        raise InputError(f"dense: kernel {kernel.shape} should be (inputs, outputs)")
    if x.ndim != 2:
        raise InputError(f"dense: x {x.shape} should be (N, {kernel.shape[0]}): put flatten before it")
    checks.floating("dense", x=x, kernel=kernel)
    if x.shape[1] != kernel.shape[0]:
        raise InputError(
            f"dense: x has {x.shape[1]} values an example but kernel {kernel.shape} takes {kernel.shape[0]}; "
            "was it made for images of another size?"
        )
    y = jnp.matmul(x, kernel, precision=precision)
    if bias is None:
        return y
    bias = jnp.asarray(bias)
    checks.floating("dense", x=x, bias=bias)
    checks.vector("dense", "bias", bias, kernel.shape[1])
    return y + bias[None]


def flatten(x: Shaped[Array, "n *rest"]) -> Shaped[Array, "n i"]:
    """Every example as one row, channels fastest: pixel (h, w, c) lands at ``(h·W + w)·C + c``.

    PyTorch flattens its (C, H, W) in another order, so a dense kernel cannot be carried over as it is.

    >>> flatten(jnp.arange(12).reshape(1, 2, 2, 3)).shape
    (1, 12)
    """
    x = jnp.asarray(x)
    if x.ndim < 2:
        raise InputError(f"flatten: x {x.shape} should be (N, ...): add the batch axis, x[None]")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def dropout(x: Float[Array, "*shape"], key: jax.Array | None, rate: float) -> Float[Array, "*shape"]:
    """Set a random fraction to zero and scale up the rest, so that the mean stays: ``y = x · keep / (1 − rate)``.

    Args:
        x: any floating array.
        key: a ``jax.random.key``; the same key drops the same entries.
        rate: the fraction dropped, from 0 up to but not including 1.

    Source: Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html.

    >>> sorted(set(dropout(jnp.ones(100), jax.random.key(0), 0.5).tolist()))
    [0.0, 2.0]
    """
    x = jnp.asarray(x)
    checks.floating("dropout", x=x)
    checks.dropped("dropout", rate)
    if key is None:
        raise InputError("dropout: needs a key in training: apply(params, state, x, train=True, key=jax.random.key(0))")
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))
