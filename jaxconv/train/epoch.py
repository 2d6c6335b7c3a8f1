"""Many steps as one function: compiled into a single program, or plainly, one after the other. The numbers agree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.train.state import Batch, TrainState
from jaxconv.train.train_step import Metrics, Step

Chunk = Callable[..., tuple[TrainState, Metrics]]


def make_chunk(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The function ``(train_state, key, live, xs, *data) -> (train_state, metrics)``, to be compiled.

    Args:
        step: from :func:`jaxconv.train.make_step`.
        fetch: ``(x, *data) -> batch``, for each x along the first axis of xs.

    Returns:
        A function whose metrics are the sums over all steps. After a step that went wrong it stands still, and all
        the time if it is not ``live``.
    """

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, Metrics]:
        start = ts.step

        def body(carry: tuple[jax.Array, TrainState], x: Any) -> tuple[tuple[jax.Array, TrainState], Metrics]:
            done, ts = carry
            ts, metrics = step(ts, fetch(x, *data), key, live & (ts.step == start + done))
            return (done + 1, ts), metrics

        (_, ts), metrics = jax.lax.scan(body, (jnp.zeros_like(start), ts), xs)
        return ts, jax.tree.map(lambda sums: jnp.sum(sums, axis=0), metrics)

    return chunk


def make_plain(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The same without ``scan``: every step is a call of its own, between which Python can look at everything."""
    once = jax.jit(lambda ts, key, x, live, *data: step(ts, fetch(x, *data), key, live))

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, Metrics]:
        start, sums = int(ts.step), []
        for i in range(len(jax.tree.leaves(xs)[0])):
            x = jax.tree.map(lambda array, i=i: array[i], xs)
            ts, metrics = once(ts, key, x, live & (ts.step == start + i), *data)
            sums.append(metrics)
        return ts, jax.tree.map(lambda *steps: sum(steps), *sums)

    return chunk
