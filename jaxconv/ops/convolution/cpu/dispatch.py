"""The three passes on a CPU, each by the lowering that was fastest for its kind of convolution.

There are three in :mod:`jaxconv.ops.convolution.cpu.lowerings`, and :mod:`jaxconv.ops.convolution.cpu.autotune` has
the table. All are unrolled: each piece of a pass is an operation of its own, and XLA takes some milliseconds to compile
each. What would be more than :data:`MOST_PIECES` is left to lax, which is one operation, whatever its window and
stride.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxconv.ops import numerics
from jaxconv.ops.convolution.cpu import autotune, lowerings
from jaxconv.ops.convolution.lowerings import LAX_PASSES, im2col_conv
from jaxconv.ops.convolution.primitives import FACTORS, Form, Lowering, others, shape_of

MOST_PIECES = 160  # 7×7 taps of 3 channels are 147
PHASE = 4  # pieces: it is cut out, convolved and put between the others


def _passes(conv: lowerings.Conv, kernel_gradient: Lowering) -> dict[str, Lowering]:
    """The passes by what each lowering has of its own."""

    def forward(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
        return conv(x, kernel, form.window, groups=form.groups, precision=form.precision)

    return {"y": forward, "kernel": kernel_gradient, "x": partial(lowerings.input_gradient, conv)}


LOWERINGS = {
    "library": _passes(lowerings.library_conv, lowerings.library_kernel_gradient),
    "taps": _passes(lowerings.taps_conv, lowerings.taps_kernel_gradient),
    "products": _passes(im2col_conv, lowerings.products_kernel_gradient),
}


def _fastest(wanted: str, first: jax.Array, second: jax.Array, form: Form) -> jax.Array:
    first, second = numerics.upcast(first), numerics.upcast(second)
    shapes = dict(zip(others(wanted), (first.shape, second.shape), strict=True))
    *_, c, features = shapes.get("kernel") or shape_of("kernel", first.shape, second.shape, form)
    lowering = autotune.best_lowering(wanted, autotune.conv_category(c, features // form.groups, form.groups))
    if first.dtype != jnp.float32:  # of which XLA compiles convolutions as plain loops, and taps are not measured
        lowering = "products"
    if pieces(wanted, lowering, c, form) > MOST_PIECES:
        return LAX_PASSES[wanted](first, second, form)
    return LOWERINGS[lowering][wanted](first, second, form)


def pieces(wanted: str, lowering: str, channels: int, form: Form) -> int:
    """The operations that a lowering makes of a pass, about.

    Args:
        wanted, lowering: the pass, and one of :data:`LOWERINGS`.
        channels: of one group, those of the kernel.
        form: of the convolution.
    """
    phases = 1
    if wanted == "x" and max(form.window.stride) > 1 and max(form.window.dilation) == 1:
        phases = PHASE * math.prod(form.window.stride)
    if lowering == "library":
        return phases  # each with a convolution a group, of which there are few
    terms = channels if lowering == "taps" and wanted == "y" and form.groups == 1 else 1
    return max(phases, terms * math.prod(form.window.size))


PASSES: dict[str, Lowering] = {wanted: partial(_fastest, wanted) for wanted in FACTORS}
