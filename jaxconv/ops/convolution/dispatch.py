"""The lowering ``auto``: each pass is lowered for the platform that the program is compiled for.

A CPU takes :mod:`jaxconv.ops.convolution.cpu`; a GPU or TPU takes the passes of lax, which have hardware there.
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
    dtypes = (x.dtype, kernel.dtype, numerics.accumulator_dtype(x))
    return primitives.run("y", x, kernel, primitives.Form(window, x.shape[1:-1], groups, dtypes, precision))


for factor in primitives.FACTORS:
    primitives.lower(factor, cpu.PASSES[factor], platform="cpu")
    primitives.lower(factor, lowerings.LAX_PASSES[factor])
    primitives.register(factor)
