"""Convolution by hand: the sum over taps, as the formula is written.

    y[n, p, o] = Σ_u  ( Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o] )

The sum over u is a Python loop over the window's taps (9 for a 3×3 kernel). For one tap, every output pixel meets
one input pixel, so the sum over c is one matrix product of all those pixels with ``kernel[u]``. ``jax.grad``
differentiates it as it stands: slices, products and sums.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv.ops.numerics import mix
from jaxconv.ops.sliding_window import pad, taps
from jaxconv.shapes import ResolvedWindow


def explicit_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    x, kernel = checks.widened(x), checks.widened(kernel)
    y = jnp.zeros((), x.dtype)
    for u, pixels in taps(pad(x, window), window):
        y += mix(pixels, kernel[u], groups, precision)
    return y
