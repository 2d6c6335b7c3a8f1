"""How parameters start: what the layers of a kernel, and those of a scale, have in common."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn.initializers import he_normal

from jaxconv.errors import InputError
from jaxconv.layers.layer import Shape, Tree
from jaxconv.ops import checks
from jaxconv.shapes import Sizes, per_dimension

Initializer = Callable[..., jax.Array]

HE_NORMAL: Initializer = he_normal()


def kernel_and_bias(layer: str, init: Initializer, key: jax.Array, shape: Shape, use_bias: bool) -> Tree:
    """A kernel by its initializer, and zeros for the bias."""
    features = shape[-1]
    if not isinstance(features, int) or features < 1:
        raise InputError(f"{layer}: features={features} should be an int of at least 1")
    # In one program: an initializer by itself is a dozen, each compiled for every shape.
    params = {"kernel": jax.jit(init, static_argnums=(1, 2))(key, shape, jnp.float32)}
    return params | {"bias": jnp.zeros(features, jnp.float32)} if use_bias else params


def kernel_names(use_bias: bool) -> tuple[str, ...]:
    return ("kernel", "bias") if use_bias else ("kernel",)


def kernel_shape(layer: str, kernel_size: Sizes, in_shape: Shape, groups: int, features: int) -> Shape:
    """``(*window, C // groups, features)`` for one example's shape."""
    try:
        window = per_dimension(kernel_size, len(in_shape) - 1, "kernel_size")
    except InputError as error:
        raise InputError(f"{layer}: {error}; in_shape {in_shape} should be one example's, (H, W, C)") from None
    return (*window, checks.per_group(layer, in_shape, groups), features)


def scale_and_bias(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
    """Ones and zeros, one a channel. Always fresh: a training step may give the memory of each away."""
    channels = in_shape[-1:]
    return {"scale": jnp.ones(channels, jnp.float32), "bias": jnp.zeros(channels, jnp.float32)}, {}
