"""Diagnostics during training: dead rectifiers, and the step that produced inf or NaN."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import distributed
from jaxconv.errors import DeadLayerWarning, InputError
from jaxconv.layers import Layer, as_layer, combinators
from jaxconv.layers.traversal import intercept, named_layers
from jaxconv.train.loaders import DeviceLoader, StreamingLoader
from jaxconv.train.multi_seed import Copies
from jaxconv.train.pixels import nonfinite_pixels_error
from jaxconv.train.snapshots import TrainProgress
from jaxconv.train.state import TrainState
from jaxconv.train.train_step import Step


def any_nonzero(y: jax.Array) -> jax.Array:
    """Return True if any element is not 0."""
    return jnp.any(y != 0)


def apply_with_activity(
    model: Layer, is_active: Callable[[jax.Array], jax.Array] | None = None
) -> Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """Return ``model.apply`` in inference mode, extended by the activity of each rectifier.

    Args:
        model: the network.
        is_active: function from a rectifier's output to a bool. By default it checks the middle row of the images
            only, at a negligible cost; :func:`any_nonzero` checks all pixels and costs a sixth of an evaluation. A
            layer without activity in the middle row must be checked with :func:`any_nonzero` before it counts as dead.

    Returns:
        ``(params, state, x) -> (logits, {name: active})``, with the logits of ``model.apply``. A model with a custom
        combinator, whose children cannot be intercepted, is applied unchanged, and the dict is empty.

    >>> from jaxconv import relu, serial
    >>> apply_with_activity(serial(lambda x: x - 2, relu))({}, {}, jnp.ones((1, 1)))[1]
    {'relu1': Array(False, dtype=bool)}
    """
    model, is_active = as_layer(model), is_active or _middle_row_active
    if not _can_intercept(model):
        return lambda params, state, x: (model.apply(params, state, x, train=False)[0], {})

    def apply_and_record(params: Any, state: Any, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        active: dict[str, jax.Array] = {}

        def record_activity(
            path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]
        ) -> jax.Array:
            y = apply(x)
            if layer.facts.rectifies:
                active[path] = is_active(y)
            return y

        return intercept(model, params, state, x, record_activity), active

    return apply_and_record


def _middle_row_active(y: jax.Array) -> jax.Array:
    """Return True if any element of the middle row of any image is not 0."""
    return any_nonzero(y if y.ndim < 3 else y[:, y.shape[1] // 2])


def rectifier_names(model: Layer) -> tuple[str, ...]:
    """Return the names of a model's rectifiers in execution order."""
    return tuple(name for name, layer in named_layers(model).items() if layer.facts.rectifies)


def warn_dead_layers(record: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> None:
    """Warn of the layers that are dead in this epoch's record, and in no previous one."""
    already_dead = {name for previous in history for name in previous.get("dead_layers", ())}
    for name in record.get("dead_layers", ()):
        if name not in already_dead:
            warnings.warn(
                DeadLayerWarning(f"fit: epoch {record['epoch']}: {dead_layer_message(name)}"),
                stacklevel=5,  # the caller of fit, through checked_call
            )


def dead_layer_message(name: str) -> str:
    """Return the warning for a dead layer, with remedies."""
    return (
        f"{name} is dead: its output is 0 for every validation image, so no gradient goes through it; "
        "start again with a lower learning rate, leaky_relu or another kernel_init"
    )


def _can_intercept(layer: Layer) -> bool:
    """Return True if the layer has no children, or combines them with this library's combinators only."""
    if not layer.children:
        return True
    return combinators.is_composite(layer) and all(_can_intercept(child) for _, child in layer.children)


def nonfinite_step_error(
    step: Step,
    train_state: TrainState,
    key: jax.Array,
    loader: DeviceLoader | StreamingLoader,
    progress: TrainProgress,
    copies: Copies,
) -> InputError:
    """Repeat the step that produced non-finite values without ``skip_nonfinite``, and return the error to raise.

    Args:
        step: created with ``skip_nonfinite=False``.
        train_state: after the last finite step; of several networks, the one with the fewest steps is examined.
        key: random key of the steps.
        loader: loader of the training batches.
        progress: position in the run.
        copies: the networks.

    Returns:
        The error. It names the example whose pixels are not finite, or else the step, the loss, and the first
        non-finite parameter.
    """
    running = [i for i, stopper in enumerate(progress.early_stopping) if not stopper.stopped]
    member_index = min(running, key=np.reshape(train_state.step, -1).__getitem__)
    train_state, key = copies.member((train_state, key), member_index)
    num_steps, plan = int(train_state.step), loader.plan
    execution, offset = divmod(num_steps - progress.epoch * plan.steps_per_epoch, plan.steps_per_execution)
    xs = next(iter(loader.executions(progress.epoch + 1, execution)))
    x = jax.tree.map(lambda leaf: leaf[offset], copies.member(xs, member_index))
    batch = loader.fetch(x, *loader.data)
    images = distributed.process_allgather(jnp.asarray(batch.image))
    if jnp.issubdtype(images.dtype, jnp.floating) and not np.isfinite(images).all():
        indices = copies.member(loader.order(progress.epoch + 1)[execution], member_index)[offset]
        indices = np.where(indices < 0, ~indices, indices)
        description = f"the training images of step {num_steps + 1}"
        return nonfinite_pixels_error(description, images, indices).from_source("fit")
    updated, metrics = jax.jit(lambda *args: step(*args[:2], key))(train_state, batch)
    loss = float(metrics.sums["loss"] / metrics.count)
    nonfinite = [
        f"{jax.tree_util.keystr(path, simple=True, separator='/')} ({count:,} of {leaf.size:,} values)"
        for path, leaf in jax.tree_util.tree_flatten_with_path(updated.params)[0]
        if (count := leaf.size - int(np.isfinite(leaf).sum()))
    ]
    parameter = f"; the first non-finite parameter is {nonfinite[0]}" if nonfinite else ""
    network = "" if copies.num_members is None else f", network {member_index}"
    return InputError(
        f"step {num_steps + 1} (epoch {progress.epoch + 1}{network}): the loss is {loss:g}{parameter}. "
        "A lower learning rate, warm-up or gradient clipping may help"
    ).from_source("fit")
