"""By matrix products, which have a library for every dtype: :mod:`jaxconv.ops.conv.im2col`, and its gradient."""

import math

import jax
import jax.numpy as jnp

from jaxconv.ops.convolution.primitives import Form
from jaxconv.ops.numerics import pair
from jaxconv.ops.sliding_window import pad, taps


def products_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """A product for each tap; of a single channel, where each would be one row of it, all taps in one product."""
    seen = [pixels for _, pixels in taps(pad(x, form.window), form.window)]
    if x.shape[-1] > 1:
        products = [pair(pixels, dy, form.groups, form.precision) for pixels in seen]
    else:  # an image at a time, whose pixels are still in the cache
        n, places = x.shape[0], math.prod(form.window.out)
        rows = jnp.stack([pixels.reshape(n, places) for pixels in seen], axis=1)
        products = [jnp.matmul(rows, dy.reshape(n, places, dy.shape[-1]), precision=form.precision).sum(axis=0)]
    return jnp.stack(products).reshape(*form.window.size, x.shape[-1] // form.groups, dy.shape[-1])
