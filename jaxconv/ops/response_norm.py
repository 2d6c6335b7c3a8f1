"""Local response normalisation, which AlexNet had before there was batch norm: neighbouring channels compete."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.ops.normalization import batched

REACH = 2.0**32  # a number up to it can be squared as it is


def local_response_norm(
    x: Float[Array, "n *spatial c"], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Float[Array, "n *spatial c"]:
    """Divide every channel by what its neighbours say at the same pixel, as AlexNet does.

        y[n, p, c] = x[n, p, c] / (k + alpha · Σ_{|j − c| ≤ size // 2} x[n, p, j]²)^beta

    The formula and the constants are the paper's. PyTorch and Caffe divide alpha by ``size``: there write
    ``alpha=5e-4`` for this 1e-4.

    Args:
        x: ``(N, *spatial, C)``; the sum stops at the first and the last channel.
        size: how many channels the sum sees, itself included; an even one sees as many as the next.
        alpha, beta: how strongly, and how steeply.
        k: above 0, or a pixel of zeros is divided by zero.

    Raises:
        InputError: a size below 1, a k that is not above 0.
        DtypeError: x holds integers.

    Source: Krizhevsky, Sutskever & Hinton, 2012, section 3.3.

    >>> local_response_norm(jnp.array([[1., 2., 0., 4.]]), size=3, alpha=1., beta=1., k=1.)
    Array([[0.16666667, 0.33333334, 0.        , 0.23529412]], dtype=float32)
    """
    x = batched("local_response_norm", x)
    checks.whole("local_response_norm", 1, size=size)
    checks.number("local_response_norm", "alpha", alpha)
    checks.number("local_response_norm", "beta", beta)
    checks.number("local_response_norm", "k", k, above=0)
    wide, channels = checks.widened(x), x.shape[-1]
    reach = min(size // 2, channels - 1)
    padded = jnp.pad(wide, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    neighbours = [padded[..., shift : shift + channels] for shift in range(2 * reach + 1)]
    # The square of a number beyond 2^64 is beyond float32. There both it and its divisor are scaled by a power of two.
    largest = functools.reduce(jnp.maximum, map(jnp.abs, neighbours))
    small = lax.stop_gradient(jnp.where(largest < REACH, 1, 1 / _power_of_two(largest)))
    total = sum(jnp.square(neighbour * small) for neighbour in neighbours)
    return (wide * small * small ** (2 * beta - 1) / (k * small * small + alpha * total) ** beta).astype(x.dtype)


def _power_of_two(size: jax.Array) -> jax.Array:
    """A power of two of about that size, whose reciprocal is a number too."""
    limits = jnp.finfo(size.dtype)
    return jnp.minimum(lax.reduce_precision(size, limits.nexp, 0), 2.0 ** (limits.maxexp - 2))
