"""Train step: one update of the parameters from a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxconv import checks, xla_options
from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Layer, as_layer
from jaxconv.runtime import compiler_options
from jaxconv.train.freezing import Trainable, freeze_model, freeze_untrained
from jaxconv.train.optimizers import check_optimizer, check_params, is_floating, update
from jaxconv.train.pixels import check_scale, to_float
from jaxconv.train.state import Batch, TrainState
from jaxconv.train.tasks import CLASSIFICATION, Classification, MetricSums, Task, measure

Step = Callable[..., tuple[TrainState, MetricSums]]
DTYPES = ("float32", "bfloat16")


@named_errors(name="train step")
def make_train_step(
    model: Layer,
    optimizer: optax.GradientTransformation,
    *,
    augment: Callable[..., jax.Array] | None = None,
    mixup_fn: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
    label_smoothing: float = 0.0,
    dtype: str = "float32",
    grad_accumulation: int = 1,
    ema_decay: float | None = None,
    scale: float | None = None,
    skip_nonfinite: bool = True,
    trainable: Trainable | None = None,
    task: Task = CLASSIFICATION,
    jit: bool = True,
) -> Step:
    """Return the function ``step(train_state, batch, key=None, live=True) -> (train_state, metrics)``.

    The loss is the mean of the task's loss over the unmasked examples. The randomness of a step depends on ``key`` and
    the step number only; without augmentation and dropout the key may be None. A step is skipped, leaving the train
    state and its step counter unchanged, if the loss or an updated parameter is not finite, if all examples are
    masked, or if ``live`` is False.

    Args:
        model, optimizer: the network and the optax optimizer. An optimizer with extra arguments gets ``value`` (the
            mean loss of the batch), ``grad`` and ``value_fn`` (``params -> value``).
        augment: data augmentation, ``(key, images) -> images``, on floats in [0, 1]: :mod:`jaxconv.data.augment`.
        mixup_fn: ``(key, images, targets) -> (images, targets)``, with targets ``(B, classes)``: mixup, cutmix.
        label_smoothing: fraction s of the target that is spread over all classes (Szegedy et al., 2015,
            https://arxiv.org/abs/1512.00567): ``(1 − s) · one_hot + s / classes``.
        dtype: compute dtype: ``"float32"``, or ``"bfloat16"`` with parameters, accumulated gradients and loss in
            float32 (mixed precision: Micikevicius et al., 2017, https://arxiv.org/abs/1710.03740).
        grad_accumulation: gradient accumulation: number of sub-batches into which each batch is split, to save memory.
            The gradient is that of the whole batch, except that batch norm uses the statistics of sub-batches.
        ema_decay: decay of the exponential moving average (EMA) of params and state, such as 0.999; None: no EMA. The
            decay at step t is at most ``(1 + t) / (10 + t)``. Arrays that are not floating, such as counters, are
            copied.
        scale: divisor of the pixels, as for :func:`to_float`.
        skip_nonfinite: skip steps as described above; False applies every update.
        trainable: parameters that are trained, by default all: a function of a path, such as
            ``lambda path: path.startswith("dense2")``, or a tree of bools like the parameters. The others are frozen:
            they have no gradient and no optimizer state. A layer whose parameters and state are all frozen, such as
            ``BatchNorm``, is applied with ``train=False`` and keeps its running statistics. The function is called
            with the paths of the state too; with a tree, a layer is frozen if it has parameters and none is trained.
        task: targets, loss and metrics: :class:`jaxconv.train.Task`.
        jit: compile with :func:`jaxconv.runtime.compiler_options`, and donate the memory of the train state that is
            passed. Within another jitted function, it is compiled as part of that. False returns the pure function.

    Raises:
        InputError: if an option is out of range; while tracing, if a parameter is not floating, the optimizer requires
            other arguments, or ``trainable`` selects no parameter.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> from jaxconv.train import create_train_state
    >>> model, optimizer = models.mlp(), optax.adam(1e-3)
    >>> train_state = create_train_state(model, optimizer, jax.random.key(0), (2, 2, 1))
    >>> step = make_train_step(model, optimizer)
    >>> batch = Batch(np.ones((3, 2, 2, 1), np.uint8), np.arange(3), np.array([True, True, False]))
    >>> train_state, metrics = step(train_state, batch)
    >>> int(train_state.step), int(metrics.count)
    (1, 2)
    """
    model = as_layer(model)
    check_optimizer(optimizer)
    if trainable is not None:
        model, optimizer = freeze_model(model, trainable), freeze_untrained(optimizer, trainable)
    check_scale(scale)
    checks.one_of("dtype", dtype, DTYPES)
    checks.at_least(1, grad_accumulation=grad_accumulation)
    for name, value in {"label_smoothing": label_smoothing, "ema_decay": ema_decay}.items():
        if value is not None and not (checks.is_number(value) and 0 <= value < 1):
            raise InputError(f"{name}={value!r} should be from 0 to below 1")
    if label_smoothing and not isinstance(task, Classification):
        raise InputError(f"label_smoothing is for Classification, not {type(task).__name__}")
    soft_targets = mixup_fn is not None or bool(label_smoothing)

    def forward(params: Any, state: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Any]:
        image = batch.image
        if dtype != "float32":
            params, image = jax.tree.map(lambda a: a.astype(dtype) if is_floating(a) else a, (params, image))
        logits, new_state = model.apply(params, state, image, train=True, key=key, mask=batch.mask)
        if dtype != "float32":  # the state of a custom layer may have the compute dtype
            cast = lambda new, old: new.astype(old.dtype) if is_floating(old) else new  # noqa: E731
            new_state = jax.tree.map(cast, new_state, state)
        return jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32)), new_state

    def prepare(train_state: TrainState, batch: Batch, key: jax.Array | None) -> Batch:
        """Return the batch as floats, augmented, and with soft targets for mixup and label smoothing."""
        if key is None and (augment is not None or mixup_fn is not None):
            raise InputError("augmentation is random: pass a key, such as jax.random.key(0)").from_source("train step")
        image, label = to_float(batch.image, scale), jnp.asarray(batch.label)
        if augment is not None:
            shape, image = image.shape, augment(_fold_in(key, 0), image)
            if image.shape != shape:
                raise InputError(
                    f"augment must keep the shape of the images, {shape}, got {image.shape}: "
                    "evaluation uses the original size"
                ).from_source("train step")
        if soft_targets:  # needed before mixup; hard targets are computed in batch_loss
            output, _ = jax.eval_shape(model.apply, train_state.params, train_state.state, image[:1])
            label = task.targets(image, label, output, soft_targets)
            if isinstance(task, Classification):
                label = label * (1 - label_smoothing) + label_smoothing / output.shape[-1]
        if mixup_fn is not None:
            image, label = mixup_fn(_fold_in(key, 1), image, label)
        return Batch(image, label, jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask))

    def batch_loss(
        params: Any, state: Any, sub_batch: Batch, key: jax.Array | None, num_examples: jax.Array
    ) -> tuple[jax.Array, tuple[Any, MetricSums]]:
        """Return the summed loss of a sub-batch divided by ``num_examples`` of the batch; then state and metrics."""
        output, state = forward(params, state, sub_batch, key)
        label = jnp.asarray(sub_batch.label)
        if not soft_targets:
            shape = jax.ShapeDtypeStruct(output.shape, output.dtype)
            label = task.targets(jnp.asarray(sub_batch.image), label, shape, soft_targets)
        metrics = measure(task, output, label, jnp.asarray(sub_batch.mask))
        return metrics.sums["loss"] / num_examples.astype(metrics.sums["loss"].dtype), (state, metrics)

    def gradients(
        train_state: TrainState, batch: Batch, key: jax.Array | None, num_examples: jax.Array
    ) -> tuple[Any, Any, MetricSums]:
        gradient = jax.grad(functools.partial(batch_loss, num_examples=num_examples), has_aux=True)
        if grad_accumulation == 1:
            grads, (state, metrics) = gradient(train_state.params, train_state.state, batch, key)
            return grads, state, metrics

        def accumulate(carry: Any, xs: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            (sums, state), (index, sub_batch) = carry, xs
            grads, (new_state, metrics) = gradient(train_state.params, state, sub_batch, _fold_in(key, index))
            updated = jax.tree.map(jnp.add, sums, (grads, metrics)), new_state
            has_examples = metrics.count > 0  # else the sub-batch is all padding, and its statistics may be NaN
            return _where(has_examples, updated, carry), None

        sub_batches = _split_batch(batch, grad_accumulation)
        first = jax.tree.map(lambda a: a[0], sub_batches)
        shapes = jax.eval_shape(gradient, train_state.params, train_state.state, first, key)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (shapes[0], shapes[1][1]))
        xs = jnp.arange(grad_accumulation), sub_batches
        ((grads, metrics), state), _ = jax.lax.scan(accumulate, (zeros, train_state.state), xs)
        return grads, state, metrics

    def mean_loss(
        params: Any, train_state: TrainState, batch: Batch, key: jax.Array | None, num_examples: jax.Array
    ) -> jax.Array:
        """Return the loss that :func:`gradients` differentiates, for optimizers that evaluate it at other params."""
        if grad_accumulation == 1:
            return batch_loss(params, train_state.state, batch, key, num_examples)[0]

        def accumulate(state: Any, xs: tuple[jax.Array, Batch]) -> tuple[Any, jax.Array]:
            index, sub_batch = xs
            loss, (new_state, metrics) = batch_loss(params, state, sub_batch, _fold_in(key, index), num_examples)
            return _where(metrics.count > 0, new_state, state), loss

        xs = jnp.arange(grad_accumulation), _split_batch(batch, grad_accumulation)
        return jnp.sum(jax.lax.scan(accumulate, train_state.state, xs)[1])

    def step(
        train_state: TrainState, batch: Batch, key: jax.Array | None = None, live: jax.Array | bool = True
    ) -> tuple[TrainState, MetricSums]:
        check_params(train_state.params)
        key = _fold_in(key, train_state.step)
        batch = prepare(train_state, batch, key)
        num_examples = jnp.maximum(jnp.sum(jnp.asarray(batch.mask), dtype=jnp.float32), 1)
        grads, state, metrics = gradients(train_state, batch, _fold_in(key, 2), num_examples)
        value_fn = functools.partial(
            mean_loss, train_state=train_state, batch=batch, key=_fold_in(key, 2), num_examples=num_examples
        )
        value = metrics.sums["loss"] / num_examples.astype(metrics.sums["loss"].dtype)
        updates, opt_state = update(optimizer, grads, train_state.opt_state, train_state.params, value, value_fn)
        params = optax.apply_updates(train_state.params, updates)
        updated = TrainState(train_state.step + 1, params, state, opt_state, train_state.ema)
        if ema_decay is not None:
            ema = _update_ema(train_state, params, state, ema_decay, frozen=trainable is not None)
            updated = updated._replace(ema=ema)
        if not skip_nonfinite:
            return updated, metrics
        is_valid = live & (metrics.count > 0) & jnp.isfinite(metrics.sums["loss"])
        # Ravel first: XLA fuses per-array reductions into every update, which is slow to compile.
        is_valid &= jnp.isfinite(ravel_pytree(params)[0]).all()
        return _where(is_valid, updated, train_state), metrics

    return xla_options.jit(step, compiler_options, donate_argnums=0) if jit else step


def _update_ema(train_state: TrainState, params: Any, state: Any, decay: float, frozen: bool) -> Any:
    t = train_state.step.astype(jnp.float32)
    decay_t = jnp.minimum(decay, (1 + t) / (10 + t))

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        if not is_floating(old):
            return new
        averaged = decay_t * old + (1 - decay_t) * new
        return jnp.where(old == new, new, averaged) if frozen else averaged  # else rounding changes frozen arrays

    return jax.tree.map(average, train_state.ema, (params, state))


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _split_batch(batch: Batch, count: int) -> Batch:
    """Split a batch into ``count`` equal sub-batches along a new first axis.

    Sub-batches are strided, so that with a sharded batch each contains examples of every device.
    """
    size = len(batch.label)
    if size % count:
        raise InputError(f"grad_accumulation={count} does not divide the batch of {size}").from_source("train step")
    return jax.tree.map(lambda a: jnp.swapaxes(a.reshape(size // count, count, *a.shape[1:]), 0, 1), batch)


def _fold_in(key: jax.Array | None, data: int | jax.Array) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, data)
