"""Back through a convolution.

The forward sum adds ``x[n, q, c] · kernel[u, c, o]`` to ``y[n, p, o]`` wherever ``q = p·stride + u·dilation − low``.
So that product hands ``dy[n, p, o]`` times one factor to the gradient of the other factor. Collected for the kernel,
this is a correlation of x with dy; collected for x, it is a convolution of dy with the kernel.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.ops.convolution.api import conv as forward
from jaxconv.ops.convolution.lowerings import explicit_conv as explicit_sum
from jaxconv.ops.convolution.transposed import conv_transpose as forward_transpose
from jaxconv.ops.convolution.transposed import lay
from jaxconv.ops.numerics import pair, swap_channels
from jaxconv.ops.sliding_window import full_edges, pad, taps
from jaxconv.shapes import IntOrInts, Padding, ResolvedWindow, Window, resolve_window


@named_errors(name="backward.conv")
def conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*window c_per_group o"],
    dy: Float[Array, "n *out o"],
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> tuple[Float[Array, "n *spatial c"], Float[Array, "*window c_per_group o"], Float[Array, " o"]]:
    """The gradients of ``y = conv(x, kernel, bias)``: ``dx, d_kernel, d_bias``.

        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p·stride + u·dilation − low, c] · dy[n, p, o]
        dx[n, q, c]       = Σ_{p, u: p·stride + u·dilation − low = q} Σ_o  kernel[u, c, o] · dy[n, p, o]
        d_bias[o]         = Σ_n Σ_p  dy[n, p, o]

    Args:
        x, kernel: what went in.
        dy: the loss's gradient by y, of y's shape.
        stride, padding, dilation, groups, padding_mode, flip_kernel: as they were in :func:`jaxconv.ops.conv`.

    Raises:
        InputError: dy has not the shape of y, or whatever the op itself would refuse.

    The 3×3 input and 2×2 kernel of lecture rows 001-21 and 001-22:

    >>> x, kernel = jnp.arange(9.).reshape(1, 3, 3, 1), jnp.array([[1., 2.], [3., 4.]])[:, :, None, None]
    >>> dx, d_kernel, d_bias = conv(x, kernel, dy=jnp.array([[1., 0.], [0., 10.]])[None, :, :, None])
    >>> d_kernel[:, :, 0, 0]
    Array([[40., 51.],
           [73., 84.]], dtype=float32)
    >>> dx[0, :, :, 0]
    Array([[ 1.,  2.,  0.],
           [ 3., 14., 20.],
           [ 0., 30., 40.]], dtype=float32)
    """
    x, kernel, dy = checks.as_arrays(x=x, kernel=kernel, dy=dy)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = jax.eval_shape(lambda: forward(x, kernel, padding_mode=padding_mode, flip_kernel=flip_kernel, **options))
    checks.cotangent(dy, y)
    if flip_kernel:
        axes = range(kernel.ndim - 2)
        dx, d_kernel, d_bias = conv(x, jnp.flip(kernel, axes), dy, padding_mode=padding_mode, **options)
        return dx, jnp.flip(d_kernel, axes), d_bias
    window = resolve_window(Window(kernel.shape[:-2], stride, padding, dilation), x.shape[1:-1])
    if padding_mode != "zeros":
        # The padding is made of pixels, so its gradient goes back to the pixels that it repeats.
        padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), mode=PADDING_MODES[padding_mode])
        dx, d_kernel, d_bias = conv(padded, kernel, dy, **options | {"padding": "VALID"})
        return _fold(dx, window.padding, padding_mode), d_kernel, d_bias
    return (
        conv_input(dy, kernel, window, x.shape[1:-1], groups=groups),
        conv_kernel(x, dy, window, groups=groups),
        bias(dy),
    )


def conv_kernel(x: jax.Array, dy: jax.Array, window: ResolvedWindow, *, groups: int) -> jax.Array:
    """Correlation of the input with dy: slide dy, its pixels ``stride`` apart, over the padded x.

        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p·stride + u·dilation − low, c] · dy[n, p, o]

    One number for each tap and each pair of channels, so as many places for dy as the kernel has taps.
    """
    wide_x, wide_dy = numerics.upcast(x), numerics.upcast(dy)
    d_taps = [pair(pixels, wide_dy, groups, "highest") for _, pixels in taps(pad(wide_x, window), window)]
    return jnp.stack(d_taps).reshape(*window.size, x.shape[-1] // groups, dy.shape[-1]).astype(x.dtype)


def conv_input(
    dy: jax.Array, kernel: jax.Array, window: ResolvedWindow, size: tuple[int, ...], *, groups: int
) -> jax.Array:
    """Full convolution of dy with the kernel: dy's pixels ``stride`` apart, correlated with the kernel rotated by 180°.

        dx[n, q, c] = Σ_u Σ_o  z[n, q + low − u·dilation, o] · kernel[u, c, o]        z[p·stride] = dy[p], else 0

    Counting the taps from the other end, ``v = F − 1 − u``, turns the minus into a plus: the sum is the forward sum
    again, with ``kernel[::-1, ::-1]`` and its channel axes swapped.
    """
    edges = [
        (*full_edges(places, taps, stride, dilation, low, n), stride - 1)
        for n, taps, stride, (low, _), dilation, places in zip(size, *window, strict=True)
    ]
    z = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    rotated = jnp.flip(swap_channels(kernel, groups), range(kernel.ndim - 2))
    slide = resolve_window(Window(window.size, dilation=window.dilation), z.shape[1:-1])
    return explicit_sum(z, rotated, slide, groups=groups, precision="highest").astype(dy.dtype)


@named_errors(name="backward.bias")
def bias(dy: jax.Array) -> jax.Array:
    """A bias is added everywhere: ``d_bias[o] = Σ dy[…, o]``, in at least float32.

    >>> bias(jnp.array([[1., 2.], [3., 4.]]))
    Array([4., 6.], dtype=float32)
    """
    dy = checks.as_array(dy=dy)
    checks.floating_dtype(dy=dy)
    if dy.ndim < 2:
        raise InputError(f"dy {dy.shape} should be (N, *spatial, O)")
    return numerics.upcast(dy).sum(axis=tuple(range(dy.ndim - 1))).astype(dy.dtype)


@named_errors(name="backward.conv_transpose")
def conv_transpose(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*window c_per_group o"],
    dy: Float[Array, "n *out o"],
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    output_padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> tuple[Float[Array, "n *spatial c"], Float[Array, "*window c_per_group o"], Float[Array, " o"]]:
    """The gradients of ``y = conv_transpose(x, kernel, bias)``: a convolution, there and back, with the roles swapped.

        dx[n, p, c]       = Σ_u Σ_o  dy[n, p·stride + u·dilation − low, o] · kernel[u, c, o]
        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p, c] · dy[n, p·stride + u·dilation − low, o]

    Args and errors are those of :func:`conv`, the options those of :func:`jaxconv.ops.conv_transpose`.

    >>> x, kernel = jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1))
    >>> dx, d_kernel, d_bias = conv_transpose(x, kernel, dy=jnp.arange(4.)[None, :, None])
    >>> dx[0, :, 0], d_kernel[:, 0, 0]
    (Array([3., 6.], dtype=float32), Array([1., 3., 5.], dtype=float32))
    """
    x, kernel, dy = checks.as_arrays(x=x, kernel=kernel, dy=dy)
    options: dict[str, Any] = {"padding": padding, "output_padding": output_padding, "groups": groups}
    options |= {"stride": stride, "dilation": dilation}
    y = jax.eval_shape(lambda: forward_transpose(x, kernel, **options))
    checks.cotangent(dy, y)
    stamp = lay(kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation)
    lows = tuple((low, 0) for low in stamp.low)
    window = ResolvedWindow(stamp.size, stamp.stride, lows, stamp.dilation, x.shape[1:-1])
    dx = explicit_sum(dy, swap_channels(kernel, groups), window, groups=groups, precision="highest").astype(x.dtype)
    d_kernel = swap_channels(conv_kernel(dy, x, window, groups=groups), groups)
    return dx, d_kernel, bias(dy)


def _fold(dx: jax.Array, padding: tuple[tuple[int, int], ...], padding_mode: str) -> jax.Array:
    """Add the gradient of every padded pixel to that of the pixel it repeats, one dimension after another."""
    for axis, (low, high) in enumerate(padding, start=1):
        n = dx.shape[axis] - low - high
        source = np.pad(np.arange(n), (low, high), mode=PADDING_MODES[padding_mode])  # type: ignore[call-overload]
        along = jnp.moveaxis(dx, axis, 0)
        dx = jnp.moveaxis(jnp.zeros((n, *along.shape[1:]), dx.dtype).at[source].add(along), 0, axis)
    return dx
