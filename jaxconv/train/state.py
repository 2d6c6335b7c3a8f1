"""What training carries from step to step, and what goes into one."""

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
    """Some examples, padded to the size that every batch has."""

    image: np.ndarray | jax.Array  # (B, H, W, C), uint8 from 0 to 255, or float
    label: np.ndarray | jax.Array  # (B,) int32 class numbers, or (B, …) what the task takes
    mask: np.ndarray | jax.Array | None = None  # (B,), bool: False for padding; None: all count


class TrainState(NamedTuple):
    """All that changes in training: with the data order's seed, enough to go on from."""

    step: jax.Array  # updates made so far
    params: Any
    state: Any
    opt_state: Any
    ema: Any = None  # params and state, averaged over the steps, where that is asked for

    @property
    def eval_variables(self) -> tuple[Any, Any]:
        """The params and the state to use it with: the averaged ones, if there are any."""
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
    """Fresh parameters, running statistics and optimiser state, made in one compiled call.

    Args:
        model, optimizer: of the network and its training.
        key: a random key. ``jax.vmap`` over several keys makes as many networks.
        input_shape: of one example, ``(H, W, C)``.
        ema: keep the averaged network too.
        variables: params and state to copy, instead of fresh ones.
        trainable: parameters that are trained, as for :func:`jaxconv.train.make_train_step`; the optimizer keeps state
            for these only.

    Raises:
        InputError: what is no layer, no optimiser, no key or no shape; or if ``variables`` are of another model, or
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
        ts = TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
        return ts._replace(ema=(params, state)) if ema else ts

    return jax.jit(init)(key, variables)


def _check_variables(variables: Any, like: tuple[Any, Any]) -> None:
    """Raise InputError unless the variables are params and state of the model."""
    if not isinstance(variables, tuple | list) or len(variables) != 2:
        raise InputError(f"variables must be (params, state), got {type(variables).__name__}")
    names = "params", "state"
    if wrong := tree_differences(*(dict(zip(names, pair, strict=True)) for pair in (variables, like))):
        raise InputError(f"variables are of another model: {'; '.join(wrong)}")


def split_seed(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the key of a run's initialization and the key of its steps.

    >>> init, steps = split_seed(0)
    >>> bool(init == steps)
    False
    """
    root = jax.random.key(seed)
    return jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
