"""What training carries from step to step, and what goes into one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv.layers import Layer, as_layer
from jaxconv.layers.base import check_in_shape, check_key
from jaxconv.train.optimizers import check_optimizer


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
    average: Any = None  # params and state, averaged over the steps, where that is asked for

    @property
    def network(self) -> tuple[Any, Any]:
        """The params and the state to use it with: the averaged ones, if there are any."""
        return self.average or (self.params, self.state)


def init_state(
    model: Layer,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    in_shape: tuple[int, ...],
    *,
    average: bool = False,
) -> TrainState:
    """Fresh parameters, running statistics and optimiser state, made in one compiled call.

    Args:
        model, optimizer: of the network and its training.
        key: a random key. ``jax.vmap`` over several keys makes as many networks.
        in_shape: of one example, ``(H, W, C)``.
        average: keep the averaged network too.

    Raises:
        InputError: what is no layer, no optimiser, no key or no shape.
    """
    check_key("init_state", key)
    check_optimizer("init_state", optimizer)
    model, in_shape = as_layer(model), check_in_shape("init_state", in_shape)

    def init(key: jax.Array) -> TrainState:
        params, state = model.init(key, in_shape)
        ts = TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
        return ts._replace(average=(params, state)) if average else ts

    return jax.jit(init)(key)


def root_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the key of a run's initialization and the key of its steps.

    >>> init, steps = root_keys(0)
    >>> bool(init == steps)
    False
    """
    root = jax.random.key(seed)
    return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
