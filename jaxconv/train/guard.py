"""What went wrong in a step that made something infinite or no number."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import distributed
from jaxconv.errors import InputError
from jaxconv.train.loaders import Resident, Streamed, numbers_of
from jaxconv.train.pixels import not_finite
from jaxconv.train.snapshot import Position
from jaxconv.train.state import TrainState
from jaxconv.train.train_step import Step


def broken(step: Step, ts: TrainState, key: jax.Array, feed: Resident | Streamed, at: Position) -> InputError:
    """Do the step again that training stopped before, without its guard, and say what it makes.

    Args:
        step: made with ``guard=False``.
        ts: as the last good step left it; of several networks, the one that came least far is looked at.
        key: of the step's randomness.
        feed: of its batch.
        at: where in the run.

    Returns:
        The error to raise: it names the example whose pixels are not finite, or else the step, the loss, and the first
        parameter that is no longer finite.
    """
    running = [i for i, each in enumerate(at.stopping) if not each.stopped]
    member = min(running, key=lambda i: int(ts.step[i])) if np.ndim(ts.step) else None
    if member is not None:
        ts, key = jax.tree.map(lambda leaf: leaf[member], (ts, key))
    number = int(ts.step)
    chunk, row = divmod(number - at.epoch * feed.plan.steps, feed.plan.chunk)
    xs = next(iter(feed.chunks(at.epoch + 1, chunk)))
    x = jax.tree.map(lambda leaf: leaf[row] if member is None else leaf[member, row], xs)
    batch = feed.fetch(x, *feed.data)
    images = distributed.everywhere(jnp.asarray(batch.image))
    if jnp.issubdtype(images.dtype, jnp.floating) and not np.isfinite(images).all():
        numbers = numbers_of(feed, at.epoch + 1, chunk, row, member)
        return not_finite("fit", f"the training images of step {number + 1}", images, numbers)
    new, metrics = jax.jit(lambda *args: step(*args[:2], key))(ts, batch)
    loss = float(metrics.loss / metrics.examples)
    bad = [
        f"{jax.tree_util.keystr(path, simple=True, separator='/')}, {lost:,} of whose {leaf.size:,} entries are lost"
        for path, leaf in jax.tree_util.tree_flatten_with_path(new.params)[0]
        if (lost := leaf.size - int(np.isfinite(leaf).sum()))
    ]
    first = f"; the first parameter to go bad is {bad[0]}" if bad else ""
    of = "" if member is None else f", network {member}"
    return InputError(
        f"fit: step {number + 1} (epoch {at.epoch + 1}{of}): the loss is {loss:g}{first}. "
        "A lower learning rate, warm-up or a clipped gradient may help"
    )
