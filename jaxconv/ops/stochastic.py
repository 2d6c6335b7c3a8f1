"""Dropout. The random mask depends on the key alone; there is no train or eval mode."""

import reprlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


@named_errors
def dropout(x: Float[Array, "*shape"], key: jax.Array | None, rate: float) -> Float[Array, "*shape"]:
    """Zero a random fraction of x and scale the rest, which keeps the mean: ``y = x · keep / (1 − rate)``.

    Args:
        x: array of any shape and floating dtype.
        key: a ``jax.random.key``; the same key drops the same entries.
        rate: fraction of entries dropped, in [0, 1).

    Source: Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html.

    >>> sorted(set(dropout(jnp.ones(100), jax.random.key(0), 0.5).tolist()))
    [0.0, 2.0]
    """
    x = checks.as_array(x=x)
    return _drop(x, key, rate, x.shape)


@named_errors
def spatial_dropout(
    x: Float[Array, "n *spatial c"], key: jax.Array | None, rate: float
) -> Float[Array, "n *spatial c"]:
    """:func:`dropout` of whole channels: ``y[n, p, c] = x[n, p, c] · keep[n, c] / (1 − rate)``.

    Neighboring pixels of a feature map are correlated, so dropping single pixels removes little information.

    Args:
        x: ``(N, *spatial, C)``.
        key, rate: as in :func:`dropout`.

    Source: Tompson et al., 2015, https://arxiv.org/abs/1411.4280.

    >>> x = spatial_dropout(jnp.ones((1, 2, 2, 4)), jax.random.key(0), 0.5)
    >>> bool((x == x[:, :1, :1]).all()), sorted(set(x[0, 0, 0].tolist()))
    (True, [0.0, 2.0])
    """
    x = checks.as_array(x=x)
    if x.ndim < 3:
        raise InputError(f"x {x.shape} should be (N, *spatial, C); for rows of values use dropout")
    return _drop(x, key, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


def _drop(x: jax.Array, key: jax.Array | None, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Drop entries with a random mask of this shape, broadcast along its axes of size 1."""
    checks.floating_dtype(x=x)
    checks.dropout_rate(rate)
    if key is None:
        raise InputError(
            "needs a key, jax.random.key(0); a model takes it in training, "
            "apply(params, state, x, train=True, key=jax.random.key(0))"
        )
    try:
        keep = jax.random.bernoulli(key, 1.0 - rate, shape)
    except (TypeError, ValueError):
        raise InputError(f"key should be one jax.random.key(…), not {reprlib.repr(key)}") from None
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))
