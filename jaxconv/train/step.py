"""One step: a batch goes in, slightly better parameters come out. And its twin, which only looks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxconv import ops, xla_options
from jaxconv.errors import InputError, known
from jaxconv.layers import Layer, as_layer
from jaxconv.ops import checks
from jaxconv.runtime import compiler_options
from jaxconv.train.state import Batch, TrainState

Step = Callable[..., tuple[TrainState, "Metrics"]]
DTYPES = ("float32", "bfloat16")


class Metrics(NamedTuple):
    """Sums over the examples of a batch, so that sums of them are right for any number of batches."""

    loss: jax.Array
    correct: jax.Array
    examples: jax.Array


def make_step(
    model: Layer,
    optimizer: optax.GradientTransformation,
    *,
    augment: Callable[..., jax.Array] | None = None,
    mix: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
    label_smoothing: float = 0.0,
    dtype: str = "float32",
    accumulate: int = 1,
    average: float | None = None,
    guard: bool = True,
) -> Step:
    """The pure function ``(train_state, batch, key, live=True) -> (train_state, metrics)``, not yet compiled.

    The loss is the mean softmax cross-entropy of the examples that the mask lets count. The randomness of a step
    depends on ``key`` and the step's number alone; without augmentation and dropout the key may be None. A step that
    would make a parameter or the loss infinite or no number changes nothing and is not counted, nor is one without
    an example, nor one that is not ``live``.

    Args:
        model, optimizer: the network, and how it learns.
        augment: ``(key, images) -> images``, of floats from 0 to 1: :mod:`jaxconv.data.augment`.
        mix: ``(key, images, targets) -> (images, targets)``, with a row of probabilities an example: mixup, cutmix.
        label_smoothing: the share s of the target that is spread over all classes (Szegedy et al., 2015,
            https://arxiv.org/abs/1512.00567): ``(1 − s) · one_hot + s / classes``.
        dtype: what to compute in: ``"float32"``, or ``"bfloat16"`` with parameters, their gradients' sums and the
            loss still in float32 (Micikevicius et al., 2017, https://arxiv.org/abs/1710.03740).
        accumulate: go through the batch in so many parts, one after the other, and add up their gradients: the memory
            of a part, the gradient of the whole. Batch norm sees parts.
        average: keep an exponential moving average of params and state with this decay, such as 0.999; in its first
            steps t a shorter one, (1 + t) / (10 + t).
        guard: leave out for the numbers of a step that goes wrong.

    Raises:
        InputError: an option out of range.
    """
    model = as_layer(model)
    known("dtype", dtype, DTYPES, by="train step")
    checks.whole("train step", 1, accumulate=accumulate)
    for name, value in {"label_smoothing": label_smoothing, "average": average}.items():
        if value is not None and not (checks.is_number(value) and 0 <= value < 1):
            raise InputError(f"train step: {name}={value!r} should be from 0 to below 1")

    def forward(params: Any, state: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Any]:
        image = batch.image
        if dtype != "float32":
            params, image = jax.tree.map(lambda a: a.astype(dtype), (params, image))
        logits, state = model.apply(params, state, image, train=True, key=key, mask=batch.mask)
        return jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32)), state

    def prepare(ts: TrainState, batch: Batch, key: jax.Array | None) -> Batch:
        """The batch as the network sees it: floats, augmented, with soft targets where something needs them."""
        if key is None and (augment is not None or mix is not None):
            raise InputError("train step: augmentation is random: give a key, such as jax.random.key(0)")
        image, label = to_float(batch.image), jnp.asarray(batch.label)
        if augment is not None:
            size, image = image.shape, augment(_fold(key, 0), image)
            if image.shape != size:
                raise InputError(
                    f"train step: the augmentation makes {image.shape} of images {size}, but the network is used on "
                    "images as they are; keep their size, as shift:4 does"
                )
        if mix is not None or label_smoothing:
            logits, _ = jax.eval_shape(model.apply, ts.params, ts.state, image[:1])
            classes = logits.shape[-1]
            if jnp.issubdtype(label.dtype, jnp.integer):
                label = jax.nn.one_hot(checks.class_numbers(label, classes), classes, dtype=image.dtype)
            label = label * (1 - label_smoothing) + label_smoothing / classes
        if mix is not None:
            image, label = mix(_fold(key, 1), image, label)
        return Batch(image, label, jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask))

    def gradients(ts: TrainState, batch: Batch, key: jax.Array | None) -> tuple[Any, Any, Metrics]:
        total = jnp.maximum(jnp.sum(jnp.asarray(batch.mask), dtype=jnp.float32), 1)

        def loss_of(params: Any, state: Any, part: Batch, key: jax.Array | None) -> Any:
            logits, state = forward(params, state, part, key)
            metrics = measure(logits, part)
            return metrics.loss / total.astype(metrics.loss.dtype), (state, metrics)

        gradient = jax.grad(loss_of, has_aux=True)
        if accumulate == 1:
            grads, (state, metrics) = gradient(ts.params, ts.state, batch, key)
            return grads, state, metrics

        def add(carry: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            sums, state = carry
            grads, (new_state, metrics) = gradient(ts.params, state, part[1], _fold(key, part[0]))
            new = jax.tree.map(jnp.add, sums, (grads, metrics)), new_state
            there = metrics.examples > 0  # of a short batch a part may be empty, and its statistics no numbers
            return jax.tree.map(lambda new, old: jnp.where(there, new, old), new, carry), None

        parts = _parts(batch, accumulate)
        like = jax.eval_shape(gradient, ts.params, ts.state, jax.tree.map(lambda a: a[0], parts), key)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (like[0], like[1][1]))
        ((grads, metrics), state), _ = jax.lax.scan(add, (zeros, ts.state), (jnp.arange(accumulate), parts))
        return grads, state, metrics

    def step(
        ts: TrainState, batch: Batch, key: jax.Array | None, live: jax.Array | bool = True
    ) -> tuple[TrainState, Metrics]:
        key = _fold(key, ts.step)
        grads, state, metrics = gradients(ts, prepare(ts, batch, key), _fold(key, 2))
        updates, opt_state = optimizer.update(grads, ts.opt_state, ts.params)
        params = optax.apply_updates(ts.params, updates)
        new = TrainState(ts.step + 1, params, state, opt_state, ts.average)
        if average is not None:
            new = new._replace(average=_averaged(ts, params, state, average))
        if not guard:
            return new, metrics
        good = live & (metrics.examples > 0) & jnp.isfinite(metrics.loss)
        # All in one row: XLA would fuse an `and` over arrays into the update of each, which takes long to compile.
        good &= jnp.isfinite(ravel_pytree(params)[0]).all()
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), new, ts), metrics

    return step


def make_train_step(
    model: Layer, optimizer: optax.GradientTransformation, key: jax.Array | None = None, **options: Any
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The function ``(train_state, batch) -> (train_state, metrics)``, jitted; it reuses the memory of its input.

    It is compiled with :func:`jaxconv.runtime.compiler_options`; inside a program of your own, with that program's.

    Args:
        model, optimizer: the network, and how it learns.
        key: of dropout and augmentation; a model without either needs none.
        options: those of :func:`make_step`.

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
    step = make_step(model, optimizer, **options)
    return xla_options.jit(lambda ts, batch: step(ts, batch, key), compiler_options, donate_argnums=0)


def make_eval_step(model: Layer) -> Callable[[Any, Any, Batch], Metrics]:
    """The function ``(params, state, batch) -> metrics``, jitted: no dropout, running statistics.

    Asked again for the same model it returns the same function, so a model's evaluation compiles once.
    """
    return _eval_step(as_layer(model).apply)


@functools.lru_cache(maxsize=8)
def _eval_step(apply: Callable[..., tuple[jax.Array, Any]]) -> Callable[[Any, Any, Batch], Metrics]:
    return jax.jit(lambda params, state, batch: look(apply, params, state, batch)[0])


def look(
    apply: Callable[..., tuple[jax.Array, Any]], params: Any, state: Any, batch: Batch
) -> tuple[Metrics, jax.Array]:
    """What a network makes of a batch: metrics and logits, without dropout and with running statistics."""
    logits, _ = apply(params, state, to_float(batch.image), train=False)
    return measure(logits, batch), logits


def to_float(image: Any) -> jax.Array:
    """Bytes as numbers from 0 to 1, on the device: bytes are four times faster to move than floats."""
    image = jnp.asarray(image)
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def measure(logits: jax.Array, batch: Batch) -> Metrics:
    """Loss, correct answers and examples of a batch; padding counts for nothing.

    With a row of probabilities an example instead of a class number, the likeliest class is the correct one. Of an
    example with a class for every place, ``(N, H, W)``, loss and correctness are the means over its places.
    """
    label = jnp.asarray(batch.label)
    mask = jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask)
    loss = ops.softmax_cross_entropy(logits, label)
    numbers = label if jnp.issubdtype(label.dtype, jnp.integer) else jnp.argmax(label, axis=-1)
    correct = ops.correct(logits, numbers)
    if loss.ndim > 1:
        loss, correct = (each.mean(axis=tuple(range(1, each.ndim)), dtype=loss.dtype) for each in (loss, correct))
    return Metrics(
        jnp.sum(loss, where=mask),
        jnp.sum(correct, where=mask, dtype=loss.dtype),
        jnp.sum(mask, dtype=loss.dtype),
    )


def _averaged(ts: TrainState, params: Any, state: Any, decay: float) -> Any:
    t = ts.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, ts.average, (params, state))


def _parts(batch: Batch, count: int) -> Batch:
    """A batch as ``count`` equal parts, along a new first axis: of every device's examples, each part has some."""
    size = len(batch.label)
    if size % count:
        raise InputError(f"train step: accumulate={count} does not divide the batch of {size}")
    return jax.tree.map(lambda a: jnp.swapaxes(a.reshape(size // count, count, *a.shape[1:]), 0, 1), batch)


def _fold(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, number)
