"""The lowering ``auto``: each pass is lowered for the platform of the compiled function.

A CPU uses :mod:`jaxconv.ops.convolution.cpu`; a GPU or TPU uses lax, whose convolutions have hardware support there.
"""

import jax
from jax import lax

from jaxconv.ops import numerics
from jaxconv.ops.convolution import lowerings, primitives
from jaxconv.ops.convolution.cpu import dispatch as cpu
from jaxconv.shapes import ResolvedWindow


def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    """Convolution as the primitive of the forward pass."""
    dtypes = (x.dtype, kernel.dtype, numerics.accumulator_dtype(x))
    return primitives.apply_pass("y", x, kernel, primitives.ConvSpec(window, x.shape[1:-1], groups, dtypes, precision))


for output in primitives.FACTORS:
    primitives.register_lowering(output, cpu.PASSES[output], platform="cpu")
    primitives.register_lowering(output, lowerings.LAX_PASSES[output])
    primitives.register_rules(output)
