"""What training carries from step to step, and what goes into one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv.layers import Layer


class Batch(NamedTuple):
    """Some examples, padded to the size that every batch has."""

    image: np.ndarray | jax.Array  # (B, H, W, C), uint8 from 0 to 255, or float
    label: np.ndarray | jax.Array  # (B,), int32
    mask: np.ndarray | jax.Array | None = None  # (B,), bool: False for padding; None: all count


class TrainState(NamedTuple):
    """All that changes in training: with the data order's seed, enough to go on from."""

    step: jax.Array  # updates made so far
    params: Any
    state: Any
    opt_state: Any


def init_state(
    model: Layer, optimizer: optax.GradientTransformation, key: jax.Array, in_shape: tuple[int, ...]
) -> TrainState:
    """Fresh parameters, running statistics and optimiser state, made in one compiled call."""

    @jax.jit
    def init(key: jax.Array) -> TrainState:
        params, state = model.init(key, in_shape)
        return TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))

    return init(key)
