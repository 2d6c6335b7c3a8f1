"""Convolution as one matrix product: every window laid out as a row, "image to columns".

    y[n, p, o] = Σ_k  patches[n, p, k] · matrix[k, o]        k runs over the taps u and the channels c together

The patches repeat each pixel once for every tap that meets it (9 times for a 3×3 kernel): memory is the price of
doing all the work in one product, which is what processors do best. A 1×1 kernel has one tap, whose slice of x is
the patches already, so nothing is repeated.

Source: Chellapilla et al., 2006, https://inria.hal.science/inria-00112631.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv.ops.numerics import mix
from jaxconv.ops.sliding_window import pad, taps
from jaxconv.shapes import ResolvedWindow


def im2col_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    x, kernel = checks.widened(x), checks.widened(kernel)
    *size, c, features = kernel.shape
    # All taps of the first group, then all of the next: the order of the matrix's rows.
    columns = [pixels.reshape(*pixels.shape[:-1], groups, c) for _, pixels in taps(pad(x, window), window)]
    patches = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    matrix = kernel.reshape(math.prod(size) * c, features)
    return mix(patches.reshape(*patches.shape[:-2], groups * len(matrix)), matrix, groups, precision)
