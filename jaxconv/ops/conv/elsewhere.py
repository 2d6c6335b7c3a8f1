"""The three passes as lax makes them, each one operation: for a GPU or TPU, which have hardware for it.

A CPU takes them too where its own lowerings would be too many operations.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxconv.ops.conv import lax as by_lax
from jaxconv.ops.convolution.primitives import Form, Lowering, shape_of
from jaxconv.ops.sharding import varying_alike


def forward(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
    """The result has the dtype of its factors: what the hardware adds up in float32 is rounded before the bias.

    XLA for NVIDIA has no convolution whose result is wider than its factors: it would widen these and multiply in
    float32.
    """
    return by_lax.lax_conv(x, kernel, form.window, groups=form.groups, precision=form.precision, dtype=x.dtype)


def kernel_gradient(x: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    return _transposed(lambda kernel: forward(x, kernel, form), shape_of("kernel", x.shape, dy.shape, form), dy)


def input_gradient(kernel: jax.Array, dy: jax.Array, form: Form) -> jax.Array:
    return _transposed(lambda x: forward(x, kernel, form), shape_of("x", kernel.shape, dy.shape, form), dy)


def _transposed(linear: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dy: jax.Array) -> jax.Array:
    """Under ``shard_map`` of an array that varies as dy does: of one that does not, it would be a sum over devices."""
    like, dy = varying_alike(jnp.zeros(shape, dy.dtype), dy)
    (gradient,) = jax.linear_transpose(linear, like)(dy)
    return gradient


PASSES: dict[str, Lowering] = {"y": forward, "kernel": kernel_gradient, "x": input_gradient}
