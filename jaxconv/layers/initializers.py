"""Initialization of parameters: kernels and biases, scales and biases, and the ``dirac`` initializer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import he_normal

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.layers.base import Shape, Tree
from jaxconv.shapes import IntOrInts, canonicalize_sizes

Initializer = Callable[..., jax.Array]

HE_NORMAL: Initializer = he_normal()


def dirac(fallback: Initializer = HE_NORMAL) -> Initializer:
    """Return an identity initializer: filter o < C is 1 at the center of channel o and 0 elsewhere.

    With ``padding="SAME"`` and stride 1 the first min(C, O) output channels equal the input channels. For a
    convolution without groups.

    Args:
        fallback: initializer of the filters o ≥ C.

    Source: Zagoruyko & Komodakis, 2017, https://arxiv.org/abs/1706.00388; as in
    https://arxiv.org/abs/2404.00498.

    >>> from jaxconv import Conv
    >>> conv, x = Conv(3, 3, padding="SAME", kernel_init=dirac()), jnp.arange(8.).reshape(1, 2, 2, 2)
    >>> params, state = conv.init(jax.random.key(0), (2, 2, 2))
    >>> bool((conv.apply(params, state, x)[0][..., :2] == x).all())
    True
    """

    def init(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        center = tuple((n - 1) // 2 for n in shape[:-2])  # the offset at which SAME aligns input and output
        count = min(shape[-2:])
        kernel = fallback(key, shape, dtype).at[..., :count].set(0)
        return kernel.at[(*center, slice(count), slice(count))].set(jnp.eye(count, dtype=dtype))

    return init


def kernel_and_bias(init: Initializer, key: jax.Array, shape: Shape, use_bias: bool) -> Tree:
    """Return an initialized kernel and, with ``use_bias``, a bias of zeros."""
    features = shape[-1]
    if not isinstance(features, int) or features < 1:
        raise InputError(f"features={features} should be an int of at least 1")
    # Jit the initializer: called eagerly, it compiles about a dozen small programs for every new shape.
    params = {"kernel": jax.jit(init, static_argnums=(1, 2))(key, shape, jnp.float32)}
    return params | {"bias": jnp.zeros(features, jnp.float32)} if use_bias else params


def kernel_names(use_bias: bool) -> tuple[str, ...]:
    return ("kernel", "bias") if use_bias else ("kernel",)


def kernel_shape(kernel_size: IntOrInts, input_shape: Shape, groups: int, features: int) -> Shape:
    """Return the kernel shape ``(*window, C // groups, features)`` for the shape of one example."""
    try:
        window = canonicalize_sizes(kernel_size, len(input_shape) - 1, "kernel_size")
    except InputError as error:
        raise InputError(
            f"{error}; input_shape {input_shape} should be one example's, (H, W, C), without the batch axis"
        ) from None
    return (*window, checks.channels_per_group(input_shape, groups), features)


def scale_and_bias(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
    """Return new arrays of ones and zeros, one per channel; not shared, as a training step may donate their memory."""
    channels = input_shape[-1:]
    return {"scale": jnp.ones(channels, jnp.float32), "bias": jnp.zeros(channels, jnp.float32)}, {}
