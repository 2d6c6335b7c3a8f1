"""Convolution through the Fourier transform: a sum over taps becomes one product a frequency.

    ŷ[n, f, o] = Σ_c  x̂[n, f, c] · conj(k̂[f, c, o])          y = the inverse transform of ŷ

The cost does not depend on the kernel's size, so it wins for very large kernels; for 3×3 it is only instructive.
The transform treats the image as if its borders met, so that a window which hangs over the end comes round to the
start. Those places are none of ours: a window of span s fits at the first L − s + 1 of L pixels, and no other is kept.

Every frequency is a sum over the whole image, so rounding is relative to its largest pixel: beside one of 10⁸ a float32
sum of ones is lost, and a NaN is everywhere.

Source: Mathieu et al., 2013, https://arxiv.org/abs/1312.5851.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv.ops.sliding_window import pad
from jaxconv.shapes import ResolvedWindow, span


def fft_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    x, kernel = checks.widened(x), checks.widened(kernel)
    x = pad(x, window)
    length, c, features = x.shape[1:-1], kernel.shape[-2], kernel.shape[-1]
    # Zeros between the taps (dilation) and after the last, so that the kernel is as large as the image.
    zeros = jnp.zeros((), kernel.dtype)
    reaches = map(span, window.size, window.dilation)
    gaps = [(0, n - reach, d - 1) for n, reach, d in zip(length, reaches, window.dilation, strict=True)]
    kernel = lax.pad(kernel, zeros, [*gaps, (0, 0, 0), (0, 0, 0)])

    axes = tuple(range(1, x.ndim - 1))
    waves = jnp.fft.rfftn(x, axes=axes)
    waves = waves.reshape(*waves.shape[:-1], groups, c)
    response = jnp.conj(jnp.fft.rfftn(kernel, axes=tuple(a - 1 for a in axes)))
    response = response.reshape(*response.shape[:-1], groups, features // groups)
    product = jnp.einsum("n...gc,...cgo->n...go", waves, response, precision=precision)
    y = jnp.fft.irfftn(product.reshape(*product.shape[:-2], features), s=length, axes=axes)
    last = [(out - 1) * stride + 1 for out, stride in zip(window.out, window.stride, strict=True)]
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *last, features), (1, *window.stride, 1))
