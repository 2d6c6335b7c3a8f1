"""The lowering for whatever the program is compiled for, pass by pass; XLA's platform decides, not where it is traced.

On a CPU that is :mod:`cpu`. On a GPU or TPU it is what lax makes of all three, which they have hardware for.
"""

from collections.abc import Callable

import jax
from jax import lax

from jaxconv.ops import checks
from jaxconv.ops.conv import cpu, passes, transformations
from jaxconv.ops.conv import lax as by_lax
from jaxconv.shapes import ResolvedWindow


def conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    dtypes = (x.dtype, kernel.dtype, checks.accumulator(x))
    return passes.run("y", x, kernel, passes.Form(window, x.shape[1:-1], groups, dtypes, precision))


def _forward(x: jax.Array, kernel: jax.Array, form: passes.Form) -> jax.Array:
    """The result has the dtype of its factors: what the hardware adds up in float32 is rounded before the bias.

    XLA for NVIDIA has no convolution whose result is wider than its factors: it would widen these and multiply in
    float32.
    """
    return by_lax.conv(x, kernel, form.window, groups=form.groups, precision=form.precision, dtype=x.dtype)


def _kernel_gradient(x: jax.Array, dy: jax.Array, form: passes.Form) -> jax.Array:
    like = jax.ShapeDtypeStruct(passes.shape_of("kernel", x.shape, dy.shape, form), x.dtype)
    return _transposed(lambda kernel: _forward(x, kernel, form), like, dy)


def _input_gradient(kernel: jax.Array, dy: jax.Array, form: passes.Form) -> jax.Array:
    like = jax.ShapeDtypeStruct(passes.shape_of("x", kernel.shape, dy.shape, form), kernel.dtype)
    return _transposed(lambda x: _forward(x, kernel, form), like, dy)


def _transposed(linear: Callable[[jax.Array], jax.Array], like: jax.ShapeDtypeStruct, dy: jax.Array) -> jax.Array:
    (gradient,) = jax.linear_transpose(linear, like)(dy)
    return gradient


ELSEWHERE: dict[str, passes.Lowering] = {"y": _forward, "kernel": _kernel_gradient, "x": _input_gradient}

for factor in passes.FACTORS:
    passes.lower(factor, cpu.PASSES[factor], platform="cpu")
    passes.lower(factor, ELSEWHERE[factor])
    transformations.register(factor)
