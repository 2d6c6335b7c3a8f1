"""By forward convolutions that XLA hands to a library (Eigen), and that come close to what the processor can do.

It does so only in float32, with images ``(N, *spatial, C)`` and kernels ``(*window, C, O)`` as they are. The gradients
that lax makes are convolutions with swapped axes, turned kernels and windows as large as the image, and these XLA
compiles as plain loops, above all in the body of a ``scan``. So here arrays are turned first.

Groups go one after the other.
"""

import functools
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv.ops.conv import lax as by_lax
from jaxconv.ops.convolution.cpu.lowerings import cut
from jaxconv.ops.convolution.primitives import Form
from jaxconv.ops.sliding_window import layout
from jaxconv.shapes import ResolvedWindow, is_int, span

PART = 16  # images
MOST_PARTS = 16


def library_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    each = [by_lax.lax_conv(*pair, window, groups=1, precision=precision) for pair in _by_group(x, kernel, groups)]
    return jnp.concatenate(each, axis=-1)


def library_kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    """A convolution too: dy slides over x, its places are the taps, and images and channels have changed their roles.

    A few images at a time, whose part of the work stays in the cache, and of which several go on at once.
    """
    each = []
    for x_of_one, dy_of_one in _by_group(x, dy, form.groups):
        parts = zip(_parts(x_of_one), _parts(dy_of_one), strict=True)
        each.append(functools.reduce(operator.add, (_correlate(*part, form.window) for part in parts)))
    return jnp.concatenate(each, axis=-1)


def _by_group(first: jax.Array, second: jax.Array, groups: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    return zip(jnp.split(first, groups, axis=-1), jnp.split(second, groups, axis=-1), strict=True)


def _parts(x: jax.Array) -> list[jax.Array]:
    """The batch in equal parts. Where it is cut up over devices, each has a share of every part.

    A batch of any size (a symbol of ``jax.export``) is one part.
    """
    size = x.shape[0]
    if not is_int(size):
        return [x]
    most = min(MOST_PARTS, size // PART)
    count = next((n for n in range(most, 1, -1) if size % (n * jax.device_count()) == 0), 1)
    x = x.reshape(size // count, count, *x.shape[1:])
    return [x[:, i] for i in range(count)]


def _correlate(x: jax.Array, dy: jax.Array, window: ResolvedWindow) -> jax.Array:
    reach = [
        span(places, stride) + span(taps, dilation) - 1
        for taps, stride, dilation, places in zip(window.size, window.stride, window.dilation, window.out, strict=True)
    ]
    edges = [(low, r - n - low) for r, n, (low, _) in zip(reach, x.shape[1:], window.padding, strict=False)]
    x, padding = cut(x, edges)
    d_kernel = lax.conv_general_dilated(
        jnp.moveaxis(x, (0, -1), (-1, 0)),
        jnp.moveaxis(dy, 0, -2),
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=layout(len(edges)),
    )
    return jnp.moveaxis(d_kernel, 0, -2)
