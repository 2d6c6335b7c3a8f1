"""One step: a batch goes in, slightly better parameters come out. And its twin, which only looks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxconv import ops
from jaxconv.layers import Layer, as_layer
from jaxconv.train.state import Batch, TrainState


class Metrics(NamedTuple):
    """Sums over the examples of a batch, so that sums of them are right for any number of batches."""

    loss: jax.Array
    correct: jax.Array
    examples: jax.Array


def make_train_step(
    model: Layer, optimizer: optax.GradientTransformation, key: jax.Array | None = None
) -> jax.stages.Wrapped:
    """The function ``(train_state, batch) -> (train_state, metrics)``, jitted; it reuses the memory of its input.

    The loss is the mean softmax cross-entropy of the examples that the mask lets count. The randomness of a step
    depends on ``key`` and the step's number alone; a model without dropout needs no key.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> from jaxconv.train import init_state
    >>> model, optimizer = models.mlp(), optax.adam(1e-3)
    >>> ts = init_state(model, optimizer, jax.random.key(0), (2, 2, 1))
    >>> step = make_train_step(model, optimizer)
    >>> batch = Batch(np.ones((3, 2, 2, 1), np.uint8), np.arange(3), np.array([True, True, False]))
    >>> ts, metrics = step(ts, batch)
    >>> int(ts.step), int(metrics.examples)
    (1, 2)
    """
    model = as_layer(model)

    def loss_of(params: Any, state: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, tuple[Any, Metrics]]:
        logits, state = model.apply(params, state, to_float(batch.image), train=True, key=key, mask=batch.mask)
        metrics = measure(logits, batch)
        return metrics.loss / jnp.maximum(metrics.examples, 1), (state, metrics)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(ts: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = None if key is None else jax.random.fold_in(key, ts.step)
        grads, (state, metrics) = jax.grad(loss_of, has_aux=True)(ts.params, ts.state, batch, step_key)
        updates, opt_state = optimizer.update(grads, ts.opt_state, ts.params)
        return TrainState(ts.step + 1, optax.apply_updates(ts.params, updates), state, opt_state), metrics

    return step


def make_eval_step(model: Layer) -> Callable[[Any, Any, Batch], Metrics]:
    """The function ``(params, state, batch) -> metrics``, jitted: no dropout, running statistics.

    Asked again for the same model it returns the same function, so a model's evaluation compiles once.
    """
    return _eval_step(as_layer(model).apply)


@functools.lru_cache(maxsize=8)
def _eval_step(apply: Callable[..., tuple[jax.Array, Any]]) -> Callable[[Any, Any, Batch], Metrics]:
    @jax.jit
    def step(params: Any, state: Any, batch: Batch) -> Metrics:
        logits, _ = apply(params, state, to_float(batch.image), train=False)
        return measure(logits, batch)

    return step


def to_float(image: Any) -> jax.Array:
    """Bytes as numbers from 0 to 1, on the device: bytes are four times faster to move than floats."""
    image = jnp.asarray(image)
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def measure(logits: jax.Array, batch: Batch) -> Metrics:
    """Loss, correct answers and examples of a batch; padding counts for nothing."""
    label = jnp.asarray(batch.label)
    mask = jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask)
    loss = ops.softmax_cross_entropy(logits, label)
    correct = ops.correct(logits, label)
    return Metrics(
        jnp.sum(loss, where=mask),
        jnp.sum(correct, where=mask, dtype=loss.dtype),
        jnp.sum(mask, dtype=loss.dtype),
    )
