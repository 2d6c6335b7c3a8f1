"""Conversion of transposed convolutions from Keras and lax.

The libraries differ in the order of the kernel's channels, in whether the kernel is flipped, and in the meaning of
``padding``. Each function takes the kernel and arguments of another library, and returns the kernel and options for
:func:`jaxconv.ops.conv_transpose`.
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
    """Convert the kernel and options of Keras's ``Conv2DTranspose`` (or 1-D, 3-D).

    Args:
        kernel: kernel of Keras, ``(*window, O, C)``: output channels before input channels.
        stride, dilation: ``strides`` and ``dilation_rate`` of Keras.
        padding: ``"valid"`` or ``"same"``.
        output_padding: as in Keras; with None, ``"same"`` gives ``size · stride`` pixels, and ``"valid"`` at least as
            many.

    Returns:
        Kernel and options for :func:`jaxconv.ops.conv_transpose`.

    >>> kernel, options = from_keras_conv_transpose(jnp.ones((4, 3, 8, 16)), stride=2, padding="same")
    >>> kernel.shape, options["padding"], options["output_padding"]
    ((4, 3, 16, 8), ((1, 1), (0, 1)), (0, 0))
    """
    kernel, extents, strides = _validate(kernel, stride, dilation)
    extras: Sequence[int | None] = [None] * len(extents)
    if output_padding is not None:
        extras = canonicalize_sizes(output_padding, len(extents), "output_padding", minimum=0)
    pads = [_named_padding(padding, *sizes) for sizes in zip(extents, strides, extras, strict=True)]
    return jnp.swapaxes(kernel, -1, -2), _options(extents, stride, dilation, pads)


@named_errors
def from_lax_conv_transpose(
    kernel: jax.Array,
    *,
    stride: IntOrInts = 1,
    padding: str | Sequence[tuple[int, int]],
    dilation: IntOrInts = 1,
    transpose_kernel: bool = False,
) -> tuple[jax.Array, dict[str, Any]]:
    """Convert the kernel and options of ``lax.conv_transpose``, which does not flip the kernel.

    Args:
        kernel: ``(*window, C, O)``, or with ``transpose_kernel`` ``(*window, O, C)``.
        stride, dilation: ``strides`` and ``rhs_dilation`` of lax.
        padding: ``"SAME"``, ``"VALID"``, or the padding of the dilated image in lax, ``(low, high)`` per dimension.
        transpose_kernel: as in lax.

    Returns:
        Kernel and options for :func:`jaxconv.ops.conv_transpose`.

    Raises:
        InputError: if a pair has ``low >= dilated_size``, which :func:`jaxconv.ops.conv_transpose` cannot express.

    >>> kernel, options = from_lax_conv_transpose(jnp.arange(3.)[:, None, None], stride=2, padding="VALID")
    >>> kernel[:, 0, 0].tolist(), options["padding"]
    ([2.0, 1.0, 0.0], ((0, 0),))
    """
    checks.boolean("transpose_kernel", transpose_kernel)
    kernel, extents, strides = _validate(kernel, stride, dilation)
    converted = jnp.swapaxes(kernel, -1, -2) if transpose_kernel else jnp.flip(kernel, range(len(extents)))
    if isinstance(padding, str):
        pads = [_named_padding(padding, *sizes) for sizes in zip(extents, strides, strict=True)]
        return converted, _options(extents, stride, dilation, pads)
    pairs = padding if isinstance(padding, list | tuple) else []
    if len(pairs) != len(extents) or not all(map(_is_pair, pairs)):
        raise InputError(f"padding {padding!r} must be a name, or one pair (low, high) per dimension")
    return converted, _options(extents, stride, dilation, pairs)


def _validate(
    kernel: jax.Array, stride: IntOrInts, dilation: IntOrInts
) -> tuple[jax.Array, list[int], tuple[int, ...]]:
    """Return the kernel as an array, and its dilated sizes and strides per dimension."""
    kernel = checks.as_array(kernel=kernel)
    checks.kernel(kernel)
    window = kernel.shape[:-2]
    dilations = canonicalize_sizes(dilation, len(window), "dilation")
    strides = canonicalize_sizes(stride, len(window), "stride")
    return kernel, [dilated_size(f, d) for f, d in zip(window, dilations, strict=True)], strides


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_int, value))


def _named_padding(padding: str, extent: int, stride: int, extra: int | None = None) -> tuple[int, int]:
    """Padding of the dilated image for "same" and "valid"; ``extra`` is Keras's output_padding."""
    if not isinstance(padding, str) or padding.lower() not in ("same", "valid"):
        raise unknown_name_error("padding", padding, ["same", "valid"])
    if padding.lower() == "valid":
        return extent - 1, extent - 1 + (max(stride - extent, 0) if extra is None else extra)
    total = extent + stride - 2 if extra is None else extent + extent % 2 - 2 + extra
    low = min(-(-total // 2), extent - 1)
    return low, total - low


def _options(
    extents: Sequence[int], stride: IntOrInts, dilation: IntOrInts, pads: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Convert padding of the dilated image to padding and output_padding, which crop or extend the output."""
    crops = [(extent - 1 - low, extent - 1 - high) for extent, (low, high) in zip(extents, pads, strict=True)]
    if any(low < 0 for low, _ in crops):
        raise InputError(
            f"padding {tuple(pads)} is too large: each low must be less than the dilated size of the kernel"
        )
    return {
        "stride": stride,
        "padding": tuple((low, max(high, 0)) for low, high in crops),
        "output_padding": tuple(max(-high, 0) for _, high in crops),
        "dilation": dilation,
    }
