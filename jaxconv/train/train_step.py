"""One step: a batch goes in, slightly better parameters come out. And its twin, which only looks."""

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

    The loss is the mean of the task's over the examples that the mask lets count. The randomness of a step
    depends on ``key`` and the step's number alone; without augmentation and dropout the key may be None. A step that
    would make a parameter or the loss infinite or no number changes nothing and is not counted, nor is one without
    an example, nor one that is not ``live``.

    Args:
        model, optimizer: the network, and how it learns. An optimiser that takes more than gradients is given ``value``
            (the mean loss of the batch), ``grad`` and ``value_fn`` (``params -> value``).
        augment: ``(key, images) -> images``, of floats from 0 to 1: :mod:`jaxconv.data.augment`.
        mixup_fn: ``(key, images, targets) -> (images, targets)``, with a row of probabilities an example: mixup,
            cutmix.
        label_smoothing: the share s of the target that is spread over all classes (Szegedy et al., 2015,
            https://arxiv.org/abs/1512.00567): ``(1 − s) · one_hot + s / classes``.
        dtype: what to compute in: ``"float32"``, or ``"bfloat16"`` with parameters, their gradients' sums and the
            loss still in float32 (Micikevicius et al., 2017, https://arxiv.org/abs/1710.03740).
        grad_accumulation: go through the batch in so many parts, one after the other, and add up their gradients: the
            memory of a part, the gradient of the whole. Batch norm sees parts.
        ema_decay: keep an exponential moving average of params and state with this decay, such as 0.999; in its first
            steps t a shorter one, (1 + t) / (10 + t). What is not floating, such as a counter, is the newest.
        scale: what the pixels are divided by: see :func:`to_float`.
        skip_nonfinite: leave out for the numbers of a step that goes wrong.
        trainable: parameters that are trained, by default all: a function of a path, such as
            ``lambda path: path.startswith("dense2")``, or a tree of bools like the parameters. The others are frozen:
            they have no gradient and no state of the optimizer. A layer whose parameters and state are all frozen,
            such as ``BatchNorm``, works as in use and keeps its running statistics. The function is asked for the
            paths of the state too; with a tree, a layer is frozen if it has parameters and none is trained.
        task: targets, loss and metrics: :class:`jaxconv.train.Task`.
        jit: compile it with :func:`jaxconv.runtime.compiler_options`, and reuse the memory of the train state that is
            passed; inside a program of your own it is compiled with that program. False returns the pure function.

    Raises:
        InputError: an option out of range; when it is traced, a parameter that is not floating, an optimiser that
            takes something else, or if ``trainable`` selects no parameter.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> from jaxconv.train import create_train_state
    >>> model, optimizer = models.mlp(), optax.adam(1e-3)
    >>> ts = create_train_state(model, optimizer, jax.random.key(0), (2, 2, 1))
    >>> step = make_train_step(model, optimizer)
    >>> batch = Batch(np.ones((3, 2, 2, 1), np.uint8), np.arange(3), np.array([True, True, False]))
    >>> ts, metrics = step(ts, batch)
    >>> int(ts.step), int(metrics.count)
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
    soft = mixup_fn is not None or bool(label_smoothing)

    def forward(params: Any, state: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Any]:
        image = batch.image
        if dtype != "float32":
            params, image = jax.tree.map(lambda a: a.astype(dtype) if is_floating(a) else a, (params, image))
        logits, new_state = model.apply(params, state, image, train=True, key=key, mask=batch.mask)
        if dtype != "float32":  # a layer of a user's may keep some of its input there
            like = lambda new, old: new.astype(old.dtype) if is_floating(old) else new  # noqa: E731
            new_state = jax.tree.map(like, new_state, state)
        return jnp.asarray(logits, jnp.promote_types(logits.dtype, jnp.float32)), new_state

    def prepare(ts: TrainState, batch: Batch, key: jax.Array | None) -> Batch:
        """The batch as the network sees it: floats, augmented, with soft targets where something needs them."""
        if key is None and (augment is not None or mixup_fn is not None):
            raise InputError("augmentation is random: give a key, such as jax.random.key(0)").from_source("train step")
        image, label = to_float(batch.image, scale), jnp.asarray(batch.label)
        if augment is not None:
            size, image = image.shape, augment(_fold(key, 0), image)
            if image.shape != size:
                raise InputError(
                    f"the augmentation makes {image.shape} of images {size}, but the network is used on "
                    "images as they are; keep their size, as translate:4 does"
                ).from_source("train step")
        if soft:  # before the images are mixed; else the loss makes the targets, which knows the output already
            output, _ = jax.eval_shape(model.apply, ts.params, ts.state, image[:1])
            label = task.targets(image, label, output, soft)
            if isinstance(task, Classification):
                label = label * (1 - label_smoothing) + label_smoothing / output.shape[-1]
        if mixup_fn is not None:
            image, label = mixup_fn(_fold(key, 1), image, label)
        return Batch(image, label, jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask))

    def loss_of(params: Any, state: Any, part: Batch, key: jax.Array | None, total: jax.Array) -> Any:
        """The part's share of the mean over ``total`` examples."""
        output, state = forward(params, state, part, key)
        label = jnp.asarray(part.label)
        if not soft:
            shape = jax.ShapeDtypeStruct(output.shape, output.dtype)
            label = task.targets(jnp.asarray(part.image), label, shape, soft)
        metrics = measure(task, output, label, jnp.asarray(part.mask))
        return metrics.sums["loss"] / total.astype(metrics.sums["loss"].dtype), (state, metrics)

    def gradients(ts: TrainState, batch: Batch, key: jax.Array | None, total: jax.Array) -> tuple[Any, Any, MetricSums]:
        gradient = jax.grad(functools.partial(loss_of, total=total), has_aux=True)
        if grad_accumulation == 1:
            grads, (state, metrics) = gradient(ts.params, ts.state, batch, key)
            return grads, state, metrics

        def add(carry: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            sums, state = carry
            grads, (new_state, metrics) = gradient(ts.params, state, part[1], _fold(key, part[0]))
            new = jax.tree.map(jnp.add, sums, (grads, metrics)), new_state
            there = metrics.count > 0  # of a short batch a part may be empty, and its statistics no numbers
            return _where(there, new, carry), None

        parts = _parts(batch, grad_accumulation)
        like = jax.eval_shape(gradient, ts.params, ts.state, jax.tree.map(lambda a: a[0], parts), key)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (like[0], like[1][1]))
        ((grads, metrics), state), _ = jax.lax.scan(add, (zeros, ts.state), (jnp.arange(grad_accumulation), parts))
        return grads, state, metrics

    def mean_loss(params: Any, ts: TrainState, batch: Batch, key: jax.Array | None, total: jax.Array) -> jax.Array:
        """The loss that :func:`gradients` differentiates, for an optimiser that tries several params."""
        if grad_accumulation == 1:
            return loss_of(params, ts.state, batch, key, total)[0]

        def add(state: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, jax.Array]:
            share, (new, metrics) = loss_of(params, state, part[1], _fold(key, part[0]), total)
            return _where(metrics.count > 0, new, state), share

        return jnp.sum(
            jax.lax.scan(add, ts.state, (jnp.arange(grad_accumulation), _parts(batch, grad_accumulation)))[1]
        )

    def step(
        ts: TrainState, batch: Batch, key: jax.Array | None = None, live: jax.Array | bool = True
    ) -> tuple[TrainState, MetricSums]:
        check_params(ts.params)
        key = _fold(key, ts.step)
        batch = prepare(ts, batch, key)
        total = jnp.maximum(jnp.sum(jnp.asarray(batch.mask), dtype=jnp.float32), 1)
        grads, state, metrics = gradients(ts, batch, _fold(key, 2), total)
        value_fn = functools.partial(mean_loss, ts=ts, batch=batch, key=_fold(key, 2), total=total)
        value = metrics.sums["loss"] / total.astype(metrics.sums["loss"].dtype)
        updates, opt_state = update(optimizer, grads, ts.opt_state, ts.params, value, value_fn)
        params = optax.apply_updates(ts.params, updates)
        new = TrainState(ts.step + 1, params, state, opt_state, ts.ema)
        if ema_decay is not None:
            new = new._replace(ema=_averaged(ts, params, state, ema_decay, frozen=trainable is not None))
        if not skip_nonfinite:
            return new, metrics
        good = live & (metrics.count > 0) & jnp.isfinite(metrics.sums["loss"])
        # All in one row: XLA would fuse an `and` over arrays into the update of each, which takes long to compile.
        good &= jnp.isfinite(ravel_pytree(params)[0]).all()
        return _where(good, new, ts), metrics

    return xla_options.jit(step, compiler_options, donate_argnums=0) if jit else step


def _averaged(ts: TrainState, params: Any, state: Any, decay: float, frozen: bool) -> Any:
    t = ts.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + t) / (10 + t))

    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
        if not is_floating(old):
            return new
        averaged = keep * old + (1 - keep) * new
        return jnp.where(old == new, new, averaged) if frozen else averaged  # rounding would move what is frozen

    return jax.tree.map(mean, ts.ema, (params, state))


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _parts(batch: Batch, count: int) -> Batch:
    """A batch as ``count`` equal parts, along a new first axis: of every device's examples, each part has some."""
    size = len(batch.label)
    if size % count:
        raise InputError(f"grad_accumulation={count} does not divide the batch of {size}").from_source("train step")
    return jax.tree.map(lambda a: jnp.swapaxes(a.reshape(size // count, count, *a.shape[1:]), 0, 1), batch)


def _fold(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, number)
