"""The lowering for whatever the program is compiled for, pass by pass; XLA's platform decides, not where it is traced.

On a CPU that is :mod:`cpu`. On a GPU or TPU it is :mod:`elsewhere`, what lax makes of all three.
"""

import jax
from jax import lax

from jaxconv.ops import checks
from jaxconv.ops.conv import cpu, elsewhere, passes, transformations
from jaxconv.shapes import ResolvedWindow


def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    dtypes = (x.dtype, kernel.dtype, checks.accumulator(x))
    return passes.run("y", x, kernel, passes.Form(window, x.shape[1:-1], groups, dtypes, precision))


for factor in passes.FACTORS:
    passes.lower(factor, cpu.PASSES[factor], platform="cpu")
    passes.lower(factor, elsewhere.PASSES[factor])
    transformations.register(factor)
