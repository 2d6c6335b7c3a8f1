"""The lowering for whatever the program is compiled for: decided by XLA's platform, not by where it is traced.

On a CPU it is ``im2col``: lax's gradient is several times slower there inside a loop, where a compiled epoch has it.
On a GPU or TPU it is ``lax``, which they have hardware for.
"""

import functools

import jax
from jax import lax

from jaxconv.ops.conv import im2col
from jaxconv.ops.conv import lax as by_lax
from jaxconv.shapes import ResolvedWindow


@functools.partial(jax.jit, static_argnames=("window", "groups", "precision"), inline=True)  # by itself, one program
def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    on_cpu, elsewhere = (
        functools.partial(lowering.conv, window=window, groups=groups, precision=precision)
        for lowering in (im2col, by_lax)
    )
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)
