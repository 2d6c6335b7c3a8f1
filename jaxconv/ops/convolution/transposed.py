"""Transposed convolution: each input pixel adds a multiple of the kernel to the output.

    out[n, p·stride + u·dilation − low, o] += Σ_c  x[n, p, c] · kernel[u, c, o]

It is the adjoint of :func:`jaxconv.ops.conv`: ⟨conv(a), b⟩ = ⟨a, conv_transpose(b)⟩ for the same stride, padding and
dilation, and a kernel with swapped channel axes. So it equals the gradient of a convolution with respect to its images,
and decoders use it for upsampling.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.numerics import grouped_matmul
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.sliding_window import dimension_numbers, full_padding, kernel_offsets, scatter_strided
from jaxconv.shapes import (
    IntOrInts,
    Padding,
    canonicalize_padding,
    canonicalize_sizes,
    countable,
    dilated_size,
    resolve_padding,
)


class TransposedWindow(NamedTuple):
    """Window of a transposed convolution for an input of known size: one entry per dimension, all defaults resolved."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]  # pixels cropped at the start
    out: tuple[int, ...]


@named_errors
def conv_transpose(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*window c_per_group o"],
    bias: Float[Array, " o"] | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    output_padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "n *out o"]:
    """Transposed convolution, the adjoint of :func:`jaxconv.ops.conv`:

        out[n, q, o] = bias[o] + Σ_c Σ_{p, u: p·stride + u·dilation − low = q} x[n, p, c] · kernel[u, c, o]

    The output has ``(size − 1)·stride + dilated_size − low − high + output_padding`` pixels, where the dilated size of
    a window of F pixels is ``dilation·(F − 1) + 1``. The arguments have the meaning of PyTorch; to convert those of
    Keras and lax use :func:`jaxconv.ops.from_keras_conv_transpose` and :func:`jaxconv.ops.from_lax_conv_transpose`.

    Args:
        x: images ``(N, *spatial, C)``.
        kernel: ``(*window, C // groups, O)``; the channel axes are those of a convolution, not swapped.
        bias: vector ``(O,)``, or None.
        stride: upsampling factor, the distance in the output between the windows of neighboring input pixels.
        padding: pixels cropped from the output, the padding of the convolution that this reverses. ``"SAME"`` gives
            ``size · stride`` pixels.
        output_padding: pixels added at the end of the output, fewer than the stride or the dilation. It resolves an
            ambiguity: a convolution with stride 2 maps both 7 and 8 pixels to 4.
        dilation: distance between neighboring kernel entries in the output.
        groups: number of groups into which channels and filters are split, as in :func:`jaxconv.ops.conv`.
        impl: ``"lax"`` (a convolution of the dilated x with the rotated kernel), ``"explicit"`` (the sum above over
            kernel offsets) or ``"auto"``, which is lax.
        precision: as in :func:`jaxconv.ops.conv`.

    Returns:
        Feature maps ``(N, *out, O)`` of x's dtype.

    Raises:
        InputError: if shapes do not match, the output is empty, or an option is unknown.
        DtypeError: if x or kernel holds integers, or their dtypes differ.

    Source: Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285; lecture row 003-05.

    >>> x = jnp.array([1., 10.])[None, :, None]
    >>> conv_transpose(x, jnp.array([1., 2., 3.])[:, None, None], stride=2)[0, :, 0]        # 1·(1 2 3) and 10·(1 2 3)
    Array([ 1.,  2., 13., 20., 30.], dtype=float32)
    """
    x, kernel = checks.as_arrays(x=x, kernel=kernel)
    checks.kernel(kernel)
    checks.rank(x, kernel.ndim, f"(N, *spatial, C), to go with the kernel {kernel.shape}")
    checks.floating_dtype(x=x, kernel=kernel)
    checks.channels(x, kernel, groups)
    checks.precision(precision)
    checks.one_of("impl", impl, ["auto", *TRANSPOSE_LOWERINGS])
    window = resolve_transposed_window(kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation)
    lowering = TRANSPOSE_LOWERINGS["lax" if impl == "auto" else impl]
    y = over_devices(partial(lowering, window=window, groups=groups, precision=precision), x, kernel)
    return numerics.add_bias(y, bias, x.dtype)


def resolve_transposed_window(
    window: tuple[int, ...],
    size: tuple[int, ...],
    stride: IntOrInts,
    padding: Padding,
    output_padding: IntOrInts,
    dilation: IntOrInts,
) -> TransposedWindow:
    """Resolve the window for an input of known size: canonicalize every option and validate every size."""
    strides, dilations = (canonicalize_sizes(v, len(size), n) for v, n in ((stride, "stride"), (dilation, "dilation")))
    extras = canonicalize_sizes(output_padding, len(size), "output_padding", minimum=0)
    lows, outs = [], []
    for n, f, s, d, extra, pads in zip(
        size, window, strides, dilations, extras, canonicalize_padding(padding, len(size)), strict=True
    ):
        if extra and extra >= max(s, d):
            raise InputError(
                f"output_padding {output_padding!r} should be less than the stride {s} or the dilation {d}"
            )
        full = (n - 1) * s + dilated_size(f, d)
        if isinstance(pads, str) and pads.upper().startswith("SAME"):
            if extra:
                raise InputError(
                    f"output_padding {output_padding!r} cannot be combined with padding {pads!r}, which fixes the size"
                )
            low, _ = resolve_padding(pads, n * s, f, s, d)
            out = n * s
        else:
            low, high = resolve_padding(pads, full, f, s, d)
            out = full - low - high + extra
        if n < 1 or out < 1:
            raise InputError(
                f"a window of {dilated_size(f, d)} pixels on an input of {size} gives {full} pixels, of which padding "
                f"{padding!r} crops {full - out}: the output is empty; pad less"
            )
        lows.append(low)
        outs.append(out)
    countable("the output", outs)
    return TransposedWindow(window, strides, dilations, tuple(lows), tuple(outs))


def _explicit(
    x: jax.Array, kernel: jax.Array, window: TransposedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Scatter-add the contribution of each kernel offset u."""
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    y = jnp.zeros((), x.dtype)
    for u in kernel_offsets(window.size):
        start = [offset * d - low for offset, d, low in zip(u, window.dilation, window.low, strict=True)]
        y += scatter_strided(grouped_matmul(x, kernel[u], groups, precision), start, window.stride, window.out)
    return y


def _lax(
    x: jax.Array, kernel: jax.Array, window: TransposedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolve x, dilated by the stride, with the kernel rotated by 180°."""
    return lax.conv_general_dilated(
        x,
        jnp.flip(kernel, range(len(window.size))),
        window_strides=(1,) * len(window.size),
        padding=[full_padding(*sizes) for sizes in zip(x.shape[1:-1], *window, strict=True)],
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        dimension_numbers=dimension_numbers(len(window.size)),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=numerics.accumulator_dtype(x),
    )


TRANSPOSE_LOWERINGS: dict[str, Callable[..., jax.Array]] = {"lax": _lax, "explicit": _explicit}
