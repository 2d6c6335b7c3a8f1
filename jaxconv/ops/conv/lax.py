"""Convolution as XLA's own operation: ``lax.conv_general_dilated``, which GPU and TPU have hardware for."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv import checks
from jaxconv._compat import half_precision_convolution_has_a_gradient
from jaxconv.ops.sliding_window import layout
from jaxconv.shapes import ResolvedWindow


def lax_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: ResolvedWindow,
    *,
    groups: int,
    precision: lax.PrecisionLike,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """The convolution, in at least float32 unless ``dtype`` says otherwise."""
    dtype = checks.accumulator(x) if dtype is None else dtype
    if dtype != x.dtype and not half_precision_convolution_has_a_gradient():
        x, kernel = x.astype(dtype), kernel.astype(dtype)  # the same numbers, in more memory
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=layout(len(window.size)),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=dtype,
    )
