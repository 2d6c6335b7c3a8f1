"""Gradients of convolution and transposed convolution.

The forward sum adds ``x[n, q, c] · kernel[u, c, o]`` to ``y[n, p, o]`` for ``q = p·stride + u·dilation − low``. So each
product adds ``dy[n, p, o]`` times one factor to the gradient of the other factor. Summed for the kernel, this is a
correlation of x with dy; summed for x, it is a convolution of dy with the kernel.
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
from jaxconv.ops.convolution.transposed import resolve_transposed_window
from jaxconv.ops.numerics import grouped_outer_product, swap_channels
from jaxconv.ops.sliding_window import full_padding, pad, tap_slices
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
    """Gradients of ``y = conv(x, kernel, bias)``: ``dx, d_kernel, d_bias``.

        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p·stride + u·dilation − low, c] · dy[n, p, o]
        dx[n, q, c]       = Σ_{p, u: p·stride + u·dilation − low = q} Σ_o  kernel[u, c, o] · dy[n, p, o]
        d_bias[o]         = Σ_n Σ_p  dy[n, p, o]

    Args:
        x, kernel: inputs of the op.
        dy: gradient of the loss with respect to y, of the shape of y.
        stride, padding, dilation, groups, padding_mode, flip_kernel: options passed to :func:`jaxconv.ops.conv`.

    Raises:
        InputError: if dy does not have the shape of y, or :func:`jaxconv.ops.conv` raises it.

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
        # The padding repeats pixels of x, so its gradient is added to theirs.
        padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), mode=PADDING_MODES[padding_mode])
        dx, d_kernel, d_bias = conv(padded, kernel, dy, **options | {"padding": "VALID"})
        return _fold_padding(dx, window.padding, padding_mode), d_kernel, d_bias
    return (
        conv_input(dy, kernel, window, x.shape[1:-1], groups=groups),
        conv_kernel(x, dy, window, groups=groups),
        bias(dy),
    )


def conv_kernel(x: jax.Array, dy: jax.Array, window: ResolvedWindow, *, groups: int) -> jax.Array:
    """Correlation of the input with dy: slide dy, its pixels ``stride`` apart, over the padded x.

        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p·stride + u·dilation − low, c] · dy[n, p, o]

    The result has one value per kernel offset and pair of channels: dy takes one position per kernel offset.
    """
    padded, dy_upcast = pad(numerics.upcast(x), window), numerics.upcast(dy)
    d_offsets = [
        grouped_outer_product(pixels, dy_upcast, groups, "highest") for _, pixels in tap_slices(padded, window)
    ]
    return jnp.stack(d_offsets).reshape(*window.size, x.shape[-1] // groups, dy.shape[-1]).astype(x.dtype)


def conv_input(
    dy: jax.Array, kernel: jax.Array, window: ResolvedWindow, size: tuple[int, ...], *, groups: int
) -> jax.Array:
    """Full convolution of dy with the kernel: dy's pixels ``stride`` apart, correlated with the kernel rotated by 180°.

        dx[n, q, c] = Σ_u Σ_o  z[n, q + low − u·dilation, o] · kernel[u, c, o]        z[p·stride] = dy[p], else 0

    The substitution ``v = F − 1 − u`` changes the minus sign to a plus: the sum is the forward sum again, with
    ``kernel[::-1, ::-1]`` and swapped channel axes.
    """
    edges = [
        (*full_padding(positions, f, stride, dilation, low, n), stride - 1)
        for n, f, stride, (low, _), dilation, positions in zip(size, *window, strict=True)
    ]
    z = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    rotated = jnp.flip(swap_channels(kernel, groups), range(kernel.ndim - 2))
    full_window = resolve_window(Window(window.size, dilation=window.dilation), z.shape[1:-1])
    return explicit_sum(z, rotated, full_window, groups=groups, precision="highest").astype(dy.dtype)


@named_errors(name="backward.bias")
def bias(dy: jax.Array) -> jax.Array:
    """Gradient of the bias, which is added at every position: ``d_bias[o] = Σ dy[…, o]``, in at least float32.

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
    """Gradients of ``y = conv_transpose(x, kernel, bias)``: dx is a convolution of dy with the kernel.

        dx[n, p, c]       = Σ_u Σ_o  dy[n, p·stride + u·dilation − low, o] · kernel[u, c, o]
        d_kernel[u, c, o] = Σ_n Σ_p  x[n, p, c] · dy[n, p·stride + u·dilation − low, o]

    Arguments and errors are those of :func:`conv`, options those of :func:`jaxconv.ops.conv_transpose`.

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
    transposed_window = resolve_transposed_window(
        kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation
    )
    lows = tuple((low, 0) for low in transposed_window.low)
    window = ResolvedWindow(
        transposed_window.size, transposed_window.stride, lows, transposed_window.dilation, x.shape[1:-1]
    )
    dx = explicit_sum(dy, swap_channels(kernel, groups), window, groups=groups, precision="highest").astype(x.dtype)
    d_kernel = swap_channels(conv_kernel(dy, x, window, groups=groups), groups)
    return dx, d_kernel, bias(dy)


def _fold_padding(dx: jax.Array, padding: tuple[tuple[int, int], ...], padding_mode: str) -> jax.Array:
    """Add the gradient of each padding pixel to that of the pixel it repeats, one dimension after another."""
    for axis, (low, high) in enumerate(padding, start=1):
        n = dx.shape[axis] - low - high
        source = np.pad(np.arange(n), (low, high), mode=PADDING_MODES[padding_mode])  # type: ignore[call-overload]
        dx_first = jnp.moveaxis(dx, axis, 0)
        dx = jnp.moveaxis(jnp.zeros((n, *dx_first.shape[1:]), dx.dtype).at[source].add(dx_first), 0, axis)
    return dx
