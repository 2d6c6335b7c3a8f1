"""Checks while training: rectifiers that are dead, and the step that produced infinity or NaN."""

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
from jaxconv.train.pixels import not_finite
from jaxconv.train.snapshots import TrainProgress
from jaxconv.train.state import TrainState
from jaxconv.train.train_step import Step


def anywhere(y: jax.Array) -> jax.Array:
    """Whether anything is not 0."""
    return jnp.any(y != 0)


Answers = Callable[[jax.Array], jax.Array]


def apply_with_activity(
    model: Layer, answers: Answers | None = None
) -> Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """``model.apply`` in use, that tells of each rectifier whether any of its outputs was not 0.

    Args:
        model: the network.
        answers: of a rectifier's output, whether it is alive. By default the middle row of the images is looked at,
            which costs nothing that is felt, where to look :func:`anywhere` costs a sixth of an evaluation: who
            finds nothing in the middle has to look anywhere before saying that the layer is dead.

    Returns:
        ``(params, state, x) -> (logits, {name: alive})``. The numbers are those of ``apply``. A model with a part of a
        user's own, of which it cannot be known whether it does what its parts do, is applied as it is, and nothing
        is told.

    >>> from jaxconv import relu, serial
    >>> apply_with_activity(serial(lambda x: x - 2, relu))({}, {}, jnp.ones((1, 1)))[1]
    {'relu1': Array(False, dtype=bool)}
    """
    model, answers = as_layer(model), answers or _in_the_middle
    if not _does_what_its_parts_do(model):
        return lambda params, state, x: (model.apply(params, state, x, train=False)[0], {})

    def look(params: Any, state: Any, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        alive: dict[str, jax.Array] = {}

        def see(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            y = apply(x)
            if layer.facts.rectifies:
                alive[path] = answers(y)
            return y

        return intercept(model, params, state, x, see), alive

    return look


def _in_the_middle(y: jax.Array) -> jax.Array:
    """Whether anything is not 0 in the middle row of any image."""
    return anywhere(y if y.ndim < 3 else y[:, y.shape[1] // 2])


def rectifier_names(model: Layer) -> tuple[str, ...]:
    """The names of a model's rectifiers, in the order in which they are computed."""
    return tuple(name for name, layer in named_layers(model).items() if layer.facts.rectifies)


def warn_dead_layers(record: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> None:
    """Tell of the layers that are dead in this epoch's record, and were in none before it."""
    known = {name for before in history for name in before.get("dead_layers", ())}
    for name in record.get("dead_layers", ()):
        if name not in known:
            warnings.warn(
                DeadLayerWarning(f"fit: epoch {record['epoch']}: {dead_layer(name)}"),
                stacklevel=5,  # where fit was called, through checked_call
            )


def dead_layer(name: str) -> str:
    """What to tell of a layer that died, and what to do about it."""
    return (
        f"{name} is dead: its output is 0 for every validation image, so no gradient goes through it; "
        "start again with a lower learning rate, leaky_relu or another kernel_init"
    )


def _does_what_its_parts_do(layer: Layer) -> bool:
    if not layer.children:
        return True
    return combinators.is_composite(layer) and all(_does_what_its_parts_do(part) for _, part in layer.children)


def nonfinite_step_error(
    step: Step, ts: TrainState, key: jax.Array, feed: DeviceLoader | StreamingLoader, at: TrainProgress, copies: Copies
) -> InputError:
    """Do the step again that training stopped before, without its guard, and say what it makes.

    Args:
        step: made with ``skip_nonfinite=False``.
        ts: as the last good step left it; of several networks, the one that came least far is looked at.
        key: of the step's randomness.
        feed: of its batch.
        at: where in the run.
        copies: the networks.

    Returns:
        The error to raise: it names the example whose pixels are not finite, or else the step, the loss, and the first
        parameter that is no longer finite.
    """
    running = [i for i, each in enumerate(at.early_stopping) if not each.stopped]
    member = min(running, key=np.reshape(ts.step, -1).__getitem__)
    ts, key = copies.member((ts, key), member)
    number = int(ts.step)
    chunk, row = divmod(number - at.epoch * feed.plan.steps_per_epoch, feed.plan.steps_per_execution)
    xs = next(iter(feed.chunks(at.epoch + 1, chunk)))
    x = jax.tree.map(lambda leaf: leaf[row], copies.member(xs, member))
    batch = feed.fetch(x, *feed.data)
    images = distributed.process_allgather(jnp.asarray(batch.image))
    if jnp.issubdtype(images.dtype, jnp.floating) and not np.isfinite(images).all():
        index = copies.member(feed.order(at.epoch + 1)[chunk], member)[row]
        numbers = np.where(index < 0, ~index, index)
        return not_finite(f"the training images of step {number + 1}", images, numbers).from_source("fit")
    new, metrics = jax.jit(lambda *args: step(*args[:2], key))(ts, batch)
    loss = float(metrics.sums["loss"] / metrics.count)
    bad = [
        f"{jax.tree_util.keystr(path, simple=True, separator='/')}, {lost:,} of whose {leaf.size:,} entries are lost"
        for path, leaf in jax.tree_util.tree_flatten_with_path(new.params)[0]
        if (lost := leaf.size - int(np.isfinite(leaf).sum()))
    ]
    first = f"; the first parameter to go bad is {bad[0]}" if bad else ""
    of = "" if copies.num_members is None else f", network {member}"
    return InputError(
        f"step {number + 1} (epoch {at.epoch + 1}{of}): the loss is {loss:g}{first}. "
        "A lower learning rate, warm-up or a clipped gradient may help"
    ).from_source("fit")
