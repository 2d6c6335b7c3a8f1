"""The lowering for whatever the program is compiled for, pass by pass; XLA's platform decides, not where it is traced.

On a CPU that is :mod:`cpu`. On a GPU or TPU it is :mod:`elsewhere`, what lax makes of all three.
"""

import jax
from jax import lax

from jaxconv import checks
from jaxconv.ops.conv import elsewhere, transformations
from jaxconv.ops.convolution import primitives
from jaxconv.ops.convolution.cpu import dispatch
from jaxconv.shapes import ResolvedWindow


def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    dtypes = (x.dtype, kernel.dtype, checks.accumulator(x))
    return primitives.run("y", x, kernel, primitives.Form(window, x.shape[1:-1], groups, dtypes, precision))


for factor in primitives.FACTORS:
    primitives.lower(factor, dispatch.PASSES[factor], platform="cpu")
    primitives.lower(factor, elsewhere.PASSES[factor])
    transformations.register(factor)
