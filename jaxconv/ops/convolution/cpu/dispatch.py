"""The three passes on a CPU, each with the lowering that was measured to be fastest for its category of convolution.

The lowerings are in :mod:`jaxconv.ops.convolution.cpu.lowerings`, the table of measurements in
:mod:`jaxconv.ops.convolution.cpu.autotune`. All lowerings are unrolled into several operations, and XLA takes some
milliseconds to compile each. A pass of more than :data:`MAX_OPERATIONS` uses lax instead, which is one operation for
any window and stride.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxconv.ops import numerics
from jaxconv.ops.convolution.cpu import autotune, lowerings
from jaxconv.ops.convolution.lowerings import LAX_PASSES, im2col_conv
from jaxconv.ops.convolution.primitives import FACTORS, ConvSpec, Lowering, other_operands, shape_of

MAX_OPERATIONS = 160  # allows 7×7 kernel offsets of 3 channels, which are 147
OPERATIONS_PER_PHASE = 4  # slice, crop, convolve and interleave


def _passes(conv: lowerings.Conv, kernel_gradient: Lowering) -> dict[str, Lowering]:
    """Return the three passes of a lowering, from its forward pass and its gradient of the kernel."""

    def forward(x: jax.Array, kernel: jax.Array, spec: ConvSpec) -> jax.Array:
        return conv(x, kernel, spec.window, groups=spec.groups, precision=spec.precision)

    return {"y": forward, "kernel": kernel_gradient, "x": partial(lowerings.input_gradient, conv)}


LOWERINGS = {
    "library": _passes(lowerings.library_conv, lowerings.library_kernel_gradient),
    "taps": _passes(lowerings.taps_conv, lowerings.taps_kernel_gradient),
    "products": _passes(im2col_conv, lowerings.products_kernel_gradient),
}


def _fastest(output: str, lhs: jax.Array, rhs: jax.Array, spec: ConvSpec) -> jax.Array:
    """Compute a pass with the fastest lowering of its category."""
    lhs, rhs = numerics.upcast(lhs), numerics.upcast(rhs)
    shapes = dict(zip(other_operands(output), (lhs.shape, rhs.shape), strict=True))
    *_, c, features = shapes.get("kernel") or shape_of("kernel", lhs.shape, rhs.shape, spec)
    lowering = autotune.best_lowering(output, autotune.conv_category(c, features // spec.groups, spec.groups))
    if lhs.dtype != jnp.float32:  # XLA has plain loops for other convolutions, and taps were measured in float32 only
        lowering = "products"
    if num_operations(output, lowering, c, spec) > MAX_OPERATIONS:
        return LAX_PASSES[output](lhs, rhs, spec)
    return LOWERINGS[lowering][output](lhs, rhs, spec)


def num_operations(output: str, lowering: str, channels: int, spec: ConvSpec) -> int:
    """Estimate the number of operations of a pass.

    Args:
        output: output of the pass: ``"y"``, ``"kernel"`` or ``"x"``.
        lowering: one of :data:`LOWERINGS`.
        channels: input channels per group.
        spec: parameters of the convolution.
    """
    phases = 1
    if output == "x" and max(spec.window.stride) > 1 and max(spec.window.dilation) == 1:
        phases = OPERATIONS_PER_PHASE * math.prod(spec.window.stride)
    if lowering == "library":
        return phases  # times the number of groups, which is small for this lowering
    terms = channels if lowering == "taps" and output == "y" and spec.groups == 1 else 1
    return max(phases, terms * math.prod(spec.window.size))


PASSES: dict[str, Lowering] = {output: partial(_fastest, output) for output in FACTORS}
