"""By multiplications: all pixels that a tap ever meets, times its weight, added up over taps in one loop over y.

For few channels, and for one a group (depthwise), where a matrix product has little to sum over but the taps.
"""

import functools
import operator
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.convolution.primitives import Form
from jaxconv.ops.places import total
from jaxconv.ops.sliding_window import pad, taps
from jaxconv.shapes import ResolvedWindow


def taps_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """In one group, or with one channel or one filter in each; multiplications know no other precision."""
    *_, c, features = kernel.shape
    row = (1,) * (x.ndim - 1) + (-1,)

    def of_one(x: jax.Array, kernel: jax.Array) -> jax.Array:
        seen = taps(pad(x, window), window)
        return _sum(pixels[..., i : i + 1] * kernel[u][i].reshape(row) for u, pixels in seen for i in range(c))

    def of_each(x: jax.Array, kernel: jax.Array) -> jax.Array:
        seen = taps(pad(_for_each_filter(x, features, groups), window), window)
        return _sum(pixels * kernel[u].T.reshape(row) for u, pixels in seen)

    y = _apart(of_one if groups == 1 else of_each, x, kernel)
    return y if groups == 1 or c == 1 else y.reshape(*y.shape[:-1], groups, c).sum(axis=-1)


def taps_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """With one channel or one filter in each group."""
    features, channels = dy.shape[-1], x.shape[-1] // form.groups
    x = x if features == form.groups else _for_each_filter(x, features, form.groups)
    dy = dy if channels == 1 else jnp.repeat(dy, channels, axis=-1)
    seen = taps(pad(x, form.window), form.window)
    totals = jnp.stack([_total_product(pixels, dy) for _, pixels in seen])  # (taps, a channel and filter that meet)
    return totals.reshape(*form.window.size, -1, channels).swapaxes(-1, -2)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _for_each_filter(x: jax.Array, features: int, groups: int) -> jax.Array:
    """Each channel as often as it has filters."""
    return jnp.repeat(x, features // groups, axis=-1)


def _apart(function: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
    """``function(*args)``, computed once.

    XLA fuses such a sum into everything that uses it, and so computes it again for each: for the activation, for the
    pooling, for their gradients. It does not look into the branches of a condition, not even if they are the same.
    """
    return lax.cond(args[-1].ravel()[0] > 0, function, function, *args)


def _total_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """``Σ_n Σ_p x[n, p, c] · y[n, p, c]``, the first few rows at once: XLA multiplies and adds these in one loop."""
    rows = x.shape[1]
    share = next(n for n in range(min(rows, 16), 0, -1) if rows % n == 0)
    blocks = zip(jnp.split(x, share, axis=1), jnp.split(y, share, axis=1), strict=True)
    return total(_sum(a * b for a, b in blocks))
