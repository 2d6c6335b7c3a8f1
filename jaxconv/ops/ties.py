"""Who gets the gradient of a maximum, where several are the largest.

``"first"``: the first of them in reading order gets all of it, as in ``lax`` and PyTorch. ``"split"``: each gets an
equal share, which treats alike what is alike (a flat image, the zeros after a relu).
"""

from typing import Any

import jax
import jax.numpy as jnp

TIES = ("first", "split")


def largest(x: jax.Array, real: jax.Array, ties: str) -> jax.Array:
    """The maximum along the first axis.

    Args:
        x: ``(candidates, …)``.
        real: as x, or with sizes of 1; False for stand-ins (padding, a pixel that stands again), which are never larger
            than all real ones and have no part in the gradient. With ``"first"`` they must not come first.
        ties: one of :data:`TIES`.

    >>> x, real = jnp.array([7., 1., 7.]), jnp.array([True, True, True])
    >>> [jax.grad(lambda x: largest(x, real, ties))(x).tolist() for ties in TIES]
    [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    if ties == "first":
        return jnp.take_along_axis(x, jnp.argmax(x, axis=0, keepdims=True), axis=0)[0]
    return shared(x, real) if jnp.issubdtype(x.dtype, jnp.floating) else x.max(axis=0)


@jax.custom_jvp
def shared(x: jax.Array, real: jax.Array) -> jax.Array:
    """:func:`largest`, whose gradient all winners share: jax's own would give padding of −∞ a share, and NaN to NaN."""
    return x.max(axis=0)


@shared.defjvp
def _shared_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
    x, real = primals
    y = shared(x, real)
    won = (((x == y[None]) | jnp.isnan(x)) & real).astype(x.dtype)
    return y, (won / won.sum(axis=0, keepdims=True) * tangents[0]).sum(axis=0)
