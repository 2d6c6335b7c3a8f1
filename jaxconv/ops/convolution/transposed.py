"""Transposed convolution: every input pixel stamps the kernel on the output.

    out[n, p·stride + u·dilation − low, o] += Σ_c  x[n, p, c] · kernel[u, c, o]

It is the adjoint of :func:`jaxconv.ops.conv`: ⟨conv(a), b⟩ = ⟨a, conv_transpose(b)⟩ for the same stride, padding and
dilation, and a kernel whose channel axes are swapped. So it is what the gradient of a convolution does to images,
and what decoders use to make small ones large.
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
from jaxconv.ops.numerics import mix
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.sliding_window import full_edges, layout, put, tap_numbers
from jaxconv.shapes import (
    IntOrInts,
    Padding,
    canonicalize_padding,
    canonicalize_sizes,
    countable,
    dilated_size,
    resolve_padding,
)


class Stamp(NamedTuple):
    """A kernel laid on an output of known size: one entry a dimension, and nothing left to decide."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]  # what is cut off before the first pixel
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
    """Stamp the kernel on the output, once for every input pixel, and add up where stamps overlap.

        out[n, q, o] = bias[o] + Σ_c Σ_{p, u: p·stride + u·dilation − low = q} x[n, p, c] · kernel[u, c, o]

    The output has ``(size − 1)·stride + span − low − high + output_padding`` pixels, where the span of F taps is
    ``dilation·(F − 1) + 1``. Every argument means what it means in PyTorch; for Keras's and lax's meanings see
    :func:`jaxconv.ops.from_keras_conv_transpose` and :func:`jaxconv.ops.from_lax_conv_transpose`.

    Args:
        x: the images, channels last.
        kernel: the taps, then input channels (of one group), then filters: as for a convolution, not swapped.
        bias: one number a filter, or none.
        stride: pixels of the output between one stamp and the next: how many times larger the image becomes.
        padding: what is cut off the output: as much as the convolution that this undoes had added. ``"SAME"`` gives
            ``size · stride`` pixels.
        output_padding: pixels kept (or added) at the end. A convolution with stride 2 makes 4 pixels of 7 and of 8
            alike; this says which of them to come back to. Less than the stride or the dilation.
        dilation: pixels of the output from one tap to the next.
        groups: split the channels into so many groups, each seen by its own share of the filters.
        impl: ``"lax"`` (a convolution of the stretched x with the rotated kernel), ``"explicit"`` (stamps) or
            ``"auto"``, which is lax.
        precision: as in :func:`jaxconv.ops.conv`.

    Returns:
        ``(N, *out, O)``, of x's dtype.

    Raises:
        InputError: shapes that do not fit together, an empty output, an unknown option.
        DtypeError: integers, or x and kernel of different dtypes.

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
    stamp = lay(kernel.shape[:-2], x.shape[1:-1], stride, padding, output_padding, dilation)
    lowering = TRANSPOSE_LOWERINGS["lax" if impl == "auto" else impl]
    y = over_devices(partial(lowering, stamp=stamp, groups=groups, precision=precision), x, kernel)
    return numerics.add_bias(y, bias, x.dtype)


def lay(
    window: tuple[int, ...],
    size: tuple[int, ...],
    stride: IntOrInts,
    padding: Padding,
    output_padding: IntOrInts,
    dilation: IntOrInts,
) -> Stamp:
    """Every form canonicalised once, every size checked."""
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
        natural = (n - 1) * s + dilated_size(f, d)
        if isinstance(pads, str) and pads.upper().startswith("SAME"):
            if extra:
                raise InputError(
                    f"output_padding {output_padding!r} with padding {pads!r}, which says the size already"
                )
            low, _ = resolve_padding(pads, n * s, f, s, d)
            out = n * s
        else:
            low, high = resolve_padding(pads, natural, f, s, d)
            out = natural - low - high + extra
        if n < 1 or out < 1:
            raise InputError(
                f"stamps of {dilated_size(f, d)} pixels on an input of {size} cover {natural} pixels, of which padding "
                f"{padding!r} cuts off {natural - out}: nothing is left; pad less"
            )
        lows.append(low)
        outs.append(out)
    countable("the output", outs)
    return Stamp(window, strides, dilations, tuple(lows), tuple(outs))


def _explicit(x: jax.Array, kernel: jax.Array, stamp: Stamp, *, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """The sum over taps: the ink that tap u of every stamp leaves, put where it lands."""
    x, kernel = numerics.upcast(x), numerics.upcast(kernel)
    y = jnp.zeros((), x.dtype)
    for u in tap_numbers(stamp.size):
        start = [tap * d - low for tap, d, low in zip(u, stamp.dilation, stamp.low, strict=True)]
        y += put(mix(x, kernel[u], groups, precision), start, stamp.stride, stamp.out)
    return y


def _lax(x: jax.Array, kernel: jax.Array, stamp: Stamp, *, groups: int, precision: lax.PrecisionLike) -> jax.Array:
    """A convolution of x, stretched by the stride, with the kernel rotated by 180°."""
    return lax.conv_general_dilated(
        x,
        jnp.flip(kernel, range(len(stamp.size))),
        window_strides=(1,) * len(stamp.size),
        padding=[full_edges(*sizes) for sizes in zip(x.shape[1:-1], *stamp, strict=True)],
        lhs_dilation=stamp.stride,
        rhs_dilation=stamp.dilation,
        dimension_numbers=layout(len(stamp.size)),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=numerics.accumulator_dtype(x),
    )


TRANSPOSE_LOWERINGS: dict[str, Callable[..., jax.Array]] = {"lax": _lax, "explicit": _explicit}
