"""Convolution by hand: the sum over taps, as the formula is written.

    y[n, p, o] = Σ_u  ( Σ_c  x[n, p·stride + u·dilation, c] · kernel[u, c, o] )

The sum over u is a Python loop over the window's taps (9 for a 3×3 kernel). For one tap, every output pixel meets
one input pixel, so the sum over c is one matrix product of all those pixels with ``kernel[u]``. ``jax.grad``
differentiates it as it stands: slices, products and sums.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops import checks
from jaxconv.ops.window import taps
from jaxconv.shapes import ResolvedWindow


def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    *size, c, features = kernel.shape
    kernel = kernel.reshape(*size, c, groups, features // groups)
    y = jnp.zeros((), checks.accumulator(x))
    for u, pixels in taps(x, window):
        pixels = pixels.reshape(*pixels.shape[:-1], groups, c)
        y += jnp.einsum("...gc,cgo->...go", pixels, kernel[u], precision=precision, preferred_element_type=y.dtype)
    return y.reshape(*y.shape[:-2], features).astype(x.dtype)
