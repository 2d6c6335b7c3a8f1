"""Train state and batch: the inputs of a training step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.base import check_input_shape, check_key
from jaxconv.train.freezing import Trainable, freeze_untrained
from jaxconv.train.optimizers import check_optimizer
from jaxconv.train.trees import tree_differences


class Batch(NamedTuple):
    """Batch of examples, padded to a fixed size."""

    image: np.ndarray | jax.Array  # (B, H, W, C), uint8 from 0 to 255, or float
    label: np.ndarray | jax.Array  # (B,) int32 class numbers, or (B, …) for other tasks
    mask: np.ndarray | jax.Array | None = None  # (B,), bool: False for padding; None: no padding


class TrainState(NamedTuple):
    """Everything that training updates; with the seed of the data order, training can resume from it."""

    step: jax.Array  # number of updates so far
    params: Any
    state: Any
    opt_state: Any
    ema: Any = None  # exponential moving average of (params, state); None: not kept

    @property
    def eval_variables(self) -> tuple[Any, Any]:
        """Params and state for evaluation: the EMA if it is kept, else the current ones."""
        return self.ema or (self.params, self.state)


@named_errors
def create_train_state(
    model: Layer,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    input_shape: tuple[int, ...],
    *,
    ema: bool = False,
    variables: tuple[Any, Any] | None = None,
    trainable: Trainable | None = None,
) -> TrainState:
    """Initialize parameters, running statistics and optimizer state in one compiled call.

    Args:
        model, optimizer: the network and the optax optimizer.
        key: a random key. ``jax.vmap`` over several keys initializes one network per key.
        input_shape: shape of one example, ``(H, W, C)``.
        ema: keep an exponential moving average of params and state as well.
        variables: params and state to copy, instead of initializing new ones.
        trainable: parameters that are trained, as for :func:`jaxconv.train.make_train_step`; the optimizer keeps state
            for these only.

    Raises:
        InputError: if the model, optimizer, key or shape is invalid, ``variables`` are of another model, or
            ``trainable`` selects no parameter.
    """
    check_key(key)
    check_optimizer(optimizer)
    model, input_shape = as_layer(model), check_input_shape(input_shape)

    if variables is not None:
        _check_variables(variables, jax.eval_shape(lambda key: model.init(key, input_shape), key))
    if trainable is not None:
        optimizer = freeze_untrained(optimizer, trainable)

    def init(key: jax.Array, variables: Any) -> TrainState:
        params, state = model.init(key, input_shape) if variables is None else jax.tree.map(jnp.copy, tuple(variables))
        train_state = TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
        return train_state._replace(ema=(params, state)) if ema else train_state

    return jax.jit(init)(key, variables)


def _check_variables(variables: Any, expected: tuple[Any, Any]) -> None:
    """Raise InputError unless the variables match the model's params and state."""
    if not isinstance(variables, tuple | list) or len(variables) != 2:
        raise InputError(f"variables must be (params, state), got {type(variables).__name__}")
    names = "params", "state"
    if differences := tree_differences(*(dict(zip(names, pair, strict=True)) for pair in (variables, expected))):
        raise InputError(f"variables are of another model: {'; '.join(differences)}")


def split_seed(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the key of a run's initialization and the key of its steps.

    >>> init_key, step_key = split_seed(0)
    >>> bool(init_key == step_key)
    False
    """
    root = jax.random.key(seed)
    return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
