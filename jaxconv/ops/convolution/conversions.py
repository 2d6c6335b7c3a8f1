"""Transposed convolution in other libraries' words, translated into ours.

The three agree on what a stamp is and on nothing else: the order of the kernel's channels, whether it is mirrored,
and what ``padding`` counts. Each function here takes another library's kernel and arguments and returns our kernel
and the options for :func:`jaxconv.ops.conv_transpose`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors, unknown_name_error
from jaxconv.shapes import IntOrInts, canonicalize_sizes, dilated_size, is_int


@named_errors
def from_keras_conv_transpose(
    kernel: jax.Array,
    *,
    stride: IntOrInts = 1,
    padding: str = "valid",
    output_padding: IntOrInts | None = None,
    dilation: IntOrInts = 1,
) -> tuple[jax.Array, dict[str, Any]]:
    """Keras's ``Conv2DTranspose`` (and 1-D, 3-D): its kernel is ``(*window, O, C)``.

    Args:
        kernel: as Keras keeps it, output channels before input channels.
        stride, dilation: Keras's ``strides`` and ``dilation_rate``.
        padding: ``"valid"`` or ``"same"``.
        output_padding: as in Keras; None makes ``"same"`` give ``size · stride`` pixels, and ``"valid"`` at least
            a stride a pixel.

    Returns:
        The kernel and the options for :func:`jaxconv.ops.conv_transpose`.

    >>> kernel, options = from_keras_conv_transpose(jnp.ones((4, 3, 8, 16)), stride=2, padding="same")
    >>> kernel.shape, options["padding"], options["output_padding"]
    ((4, 3, 16, 8), ((1, 1), (0, 1)), (0, 0))
    """
    kernel, reach, strides = _taken(kernel, stride, dilation)
    extras: Sequence[int | None] = [None] * len(reach)
    if output_padding is not None:
        extras = canonicalize_sizes(output_padding, len(reach), "output_padding", minimum=0)
    pads = [_named_padding(padding, *sizes) for sizes in zip(reach, strides, extras, strict=True)]
    return jnp.swapaxes(kernel, -1, -2), _options(reach, stride, dilation, pads)


@named_errors
def from_lax_conv_transpose(
    kernel: jax.Array,
    *,
    stride: IntOrInts = 1,
    padding: str | Sequence[tuple[int, int]],
    dilation: IntOrInts = 1,
    transpose_kernel: bool = False,
) -> tuple[jax.Array, dict[str, Any]]:
    """``lax.conv_transpose``, which correlates the stretched image with the kernel as it is: mirrored, in our words.

    Args:
        kernel: ``(*window, C, O)``, or with ``transpose_kernel`` ``(*window, O, C)``.
        stride, dilation: lax's ``strides`` and ``rhs_dilation``.
        padding: ``"SAME"``, ``"VALID"``, or what lax adds to the stretched image, ``(low, high)`` a dimension.
        transpose_kernel: as in lax.

    Returns:
        The kernel and the options for :func:`jaxconv.ops.conv_transpose`.

    Raises:
        InputError: pairs so large that they add pixels before the first stamp, which no padding of ours can.

    >>> kernel, options = from_lax_conv_transpose(jnp.arange(3.)[:, None, None], stride=2, padding="VALID")
    >>> kernel[:, 0, 0].tolist(), options["padding"]
    ([2.0, 1.0, 0.0], ((0, 0),))
    """
    checks.boolean("transpose_kernel", transpose_kernel)
    kernel, reach, strides = _taken(kernel, stride, dilation)
    ours = jnp.swapaxes(kernel, -1, -2) if transpose_kernel else jnp.flip(kernel, range(len(reach)))
    if isinstance(padding, str):
        pads = [_named_padding(padding, *sizes) for sizes in zip(reach, strides, strict=True)]
        return ours, _options(reach, stride, dilation, pads)
    pairs = padding if isinstance(padding, list | tuple) else []
    if len(pairs) != len(reach) or not all(map(_is_pair, pairs)):
        raise InputError(f"padding {padding!r} should be a name, or a pair (low, high) a dimension")
    return ours, _options(reach, stride, dilation, pairs)


def _taken(kernel: jax.Array, stride: IntOrInts, dilation: IntOrInts) -> tuple[jax.Array, list[int], tuple[int, ...]]:
    """The kernel as an array, and in each dimension how far it reaches and how far apart its stamps are."""
    kernel = checks.as_array(kernel=kernel)
    checks.kernel(kernel)
    window = kernel.shape[:-2]
    dilations = canonicalize_sizes(dilation, len(window), "dilation")
    strides = canonicalize_sizes(stride, len(window), "stride")
    return kernel, [dilated_size(f, d) for f, d in zip(window, dilations, strict=True)], strides


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_int, value))


def _named_padding(padding: str, reach: int, stride: int, extra: int | None = None) -> tuple[int, int]:
    """The pixels that "same" and "valid" add to the stretched image: Keras's rule, and lax's where extra is None."""
    if not isinstance(padding, str) or padding.lower() not in ("same", "valid"):
        raise unknown_name_error("padding", padding, ["same", "valid"])
    if padding.lower() == "valid":
        return reach - 1, reach - 1 + (max(stride - reach, 0) if extra is None else extra)
    total = reach + stride - 2 if extra is None else reach + reach % 2 - 2 + extra
    low = min(-(-total // 2), reach - 1)
    return low, total - low


def _options(
    reach: Sequence[int], stride: IntOrInts, dilation: IntOrInts, pads: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """What is added to the stretched image before a convolution, as what is cut off the stamped one or kept."""
    cuts = [(r - 1 - low, r - 1 - high) for r, (low, high) in zip(reach, pads, strict=True)]
    if any(low < 0 for low, _ in cuts):
        raise InputError(f"padding {tuple(pads)} adds pixels before the first stamp; at most the span − 1 can be")
    return {
        "stride": stride,
        "padding": tuple((low, max(high, 0)) for low, high in cuts),
        "output_padding": tuple(max(-high, 0) for _, high in cuts),
        "dilation": dilation,
    }
