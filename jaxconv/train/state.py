"""What training carries from step to step, and what goes into one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv.errors import named_errors
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.base import check_in_shape, check_key, is_keys
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


@named_errors
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
        key: a random key; several, ``(K,)``, make K networks in arrays with a first axis of K.
        in_shape: of one example, ``(H, W, C)``.
        average: keep the averaged network too.

    Raises:
        InputError: what is no layer, no optimiser, no key or no shape.
    """
    several = is_keys(key)
    if not several:
        check_key(key)
    check_optimizer(optimizer)
    model, in_shape = as_layer(model), check_in_shape(in_shape)

    def init(key: jax.Array) -> TrainState:
        params, state = model.init(key, in_shape)
        ts = TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
        return ts._replace(average=(params, state)) if average else ts

    return jax.jit(jax.vmap(init) if several else init)(key)


def root_keys(seed: int | Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """The key of a run's first parameters and that of its steps; of several seeds, arrays of them.

    >>> init, steps = root_keys(0)
    >>> bool(init == root_keys([0, 1])[0][0])
    True
    """
    if isinstance(seed, int):
        root = jax.random.key(seed)
        return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
    each = [root_keys(one) for one in seed]
    return jnp.stack([init for init, _ in each]), jnp.stack([steps for _, steps in each])
