"""The recipe of airbench94 as one function, ``run(recipe, key, images) -> accuracies``: see cifar10_speedrun.py.

The first convolution whitens 2×2 patches and does not learn, but for its bias in the first epochs; the others begin by
handing their input on. Batch norms have no scale, and their biases learn 64 times as fast. The loss is smoothed, the
learning rate goes up and down in two lines, and every five steps the network goes back towards its average.
Source: K. Jordan, 2024, https://arxiv.org/abs/2404.00498.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import BatchNorm, Conv, Dense, InputError, Layer, MaxPool, dirac, filters, flatten, gelu, ops, serial
from jaxconv import train as training
from jaxconv.data import augment

CLASSES = 10
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training images, by channel
WHITEN_SIZE, WHITEN_IMAGES = 2, 5000  # the first layer's windows, and how many images tell what they vary in
LOOKAHEAD = 5  # steps
VIEWS = (0, 1, 4, 5, 6, 9)  # of augment.test_time_views' ten: the image, up-left, down-right; and these three mirrored
WEIGHTS = (0.25, 0.125, 0.125) * 2
# PyTorch's initializer: uniform, to ±1 / √(inputs of a filter).
UNIFORM = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The paper's hyperparameters."""

    epochs: float = 9.9
    """How often every image is seen."""
    batch_size: int = 1024
    """Images a step; what is left of an epoch is dropped."""
    learning_rate: float = 11.5
    """The highest, for the sum over 1024 examples, and whatever the momentum."""
    momentum: float = 0.85
    """Nesterov's."""
    weight_decay: float = 0.0153
    """For 1024 examples, and whatever the learning rate."""
    bias_factor: float = 64.0
    """How much faster the biases of batch norms learn."""
    label_smoothing: float = 0.2
    """The share of the target that is spread over all classes."""
    whiten_epochs: int = 3
    """Epochs in which the first layer's bias learns."""
    widths: tuple[int, int, int] = (64, 256, 256)
    """Filters of the three blocks."""


class Images(NamedTuple):
    """What lies on the device when the clock starts: bytes and class numbers."""

    images: jax.Array
    labels: jax.Array
    test_images: jax.Array
    test_labels: jax.Array


class Run(NamedTuple):
    """What a training comes to."""

    losses: jax.Array  # (steps,)
    plain: jax.Array  # accuracy on the test images as they are
    accuracy: jax.Array  # and over six views of each


def run(recipe: Recipe, key: jax.Array, given: Images) -> Run:
    """A training and its evaluation, to be compiled: ``(key, images) -> accuracies``."""
    epoch = len(given.images) // recipe.batch_size  # steps
    if epoch < 1:
        raise InputError(f"speedrun: batch_size={recipe.batch_size} is more than the {len(given.images)} images")
    steps = math.ceil(epoch * recipe.epochs)
    start, order, coins, noise = jax.random.split(key, 4)
    model = network(recipe)
    kernel = filters.whitening_kernel(normal(given.images[:WHITEN_IMAGES]), WHITEN_SIZE)
    ts = training.create_train_state(model, make_optimizer(recipe, steps), start, given.images.shape[1:])
    state = ts.state | {"whiten": {"kernel": kernel}}
    ts = ts._replace(state=state, ema=(ts.params, state))

    def part(ts: training.TrainState, rows: jax.Array, epochs: jax.Array, learn: bool) -> Any:
        """Some steps, in which the first layer's bias learns or does not: then its gradient is not computed."""
        step = training.make_train_step(
            model,
            make_optimizer(recipe, steps, learn_bias=learn),
            augment=augment.random_translation(2, padding_mode="reflect"),
            label_smoothing=recipe.label_smoothing,
            dtype="bfloat16",
            skip_nonfinite=False,
            jit=False,
        )

        def body(ts: training.TrainState, x: tuple[jax.Array, jax.Array]) -> tuple[training.TrainState, jax.Array]:
            ts, metrics = step(ts, fetch(coins, given, *x), noise)
            return lookahead(ts, steps), metrics.sums["loss"] / metrics.count

        return jax.lax.scan(body, ts, (rows, epochs))

    rows, epochs = batches(order, len(given.images), recipe.batch_size, steps)
    turn, losses = min(steps, recipe.whiten_epochs * epoch), []
    for where, learn in ((slice(0, turn), True), (slice(turn, steps), False)):
        ts, made = part(ts, rows[where], epochs[where], learn)
        losses.append(made)
    plain, seen = score(model, *ts.eval_variables, given.test_images, given.test_labels)
    return Run(jnp.concatenate(losses), plain, seen)


def normal(images: jax.Array) -> jax.Array:
    """Bytes as numbers with mean 0 and deviation 1 in each channel."""
    mean, deviation = (jnp.asarray(each, jnp.float32)[None, None, None] for each in (MEAN, DEVIATION))
    return (training.to_float(images) - mean) / deviation


def fetch(key: jax.Array, given: Images, row: jax.Array, epoch: jax.Array) -> training.Batch:
    """The images of a step, mirrored in every other epoch."""
    return training.Batch(augment.alternating_flip(key, normal(given.images[row]), row, epoch), given.labels[row])


def batches(key: jax.Array, count: int, size: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """Which images each step sees, ``(steps, size)``, and in which epoch: each in another order, without its rest."""
    whole = count // size
    keys = jax.random.split(key, math.ceil(steps / whole))
    orders = jax.vmap(lambda key: jax.random.permutation(key, count)[: whole * size])(keys)
    return orders.reshape(-1, size)[:steps], jnp.arange(steps) // whole


def network(recipe: Recipe) -> Layer:
    """Seven convolutions, 31×31 pixels at first and 1 at last; the first one's kernel is given and not learned."""
    smooth = functools.partial(gelu, approximate=False)

    def conv(features: int) -> Layer:
        return Conv(features, 3, padding="SAME", use_bias=False, kernel_init=dirac(UNIFORM))

    def norm() -> Layer:
        return BatchNorm(momentum=0.6, eps=1e-12, use_scale=False)

    def block(features: int) -> Layer:
        return serial(conv(features), MaxPool(2), norm(), smooth, conv(features), norm(), smooth)

    head = Dense(CLASSES, use_bias=False, kernel_init=UNIFORM)
    return serial(whiten(), smooth, *map(block, recipe.widths), MaxPool(3), flatten, head, ninth)


def whiten() -> Layer:
    """A convolution whose kernel is state, so that nothing differentiates by it, and whose bias learns."""

    def init(key: jax.Array, input_shape: tuple[int, ...]) -> Any:
        size = (WHITEN_SIZE, WHITEN_SIZE, input_shape[-1])
        features = 2 * math.prod(size)
        return {"bias": jnp.zeros(features)}, {"kernel": jnp.zeros((*size, features))}

    def apply(params: Any, state: Any, x: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> Any:
        return ops.conv(x, state["kernel"].astype(x.dtype), params["bias"]), state

    return Layer("whiten", init, apply, name="whiten")


def ninth(x: jax.Array) -> jax.Array:
    return x / 9


def make_optimizer(recipe: Recipe, steps: int, *, learn_bias: bool = True) -> optax.GradientTransformation:
    """Nesterov's momentum on ``factor · gradient + decay · w``: factor is large for the biases of batch norms.

    A step is (1 + 1 / (1 − momentum)) times as long as its gradient once the momentum is up, so the learning rate is
    divided by that; and since the loss is a mean here, it grows with the batch.
    """
    peak = recipe.learning_rate * recipe.batch_size / 1024 / (1 + 1 / (1 - recipe.momentum))
    decay = recipe.weight_decay / recipe.learning_rate

    def scaled(grads: Any, params: Any) -> Any:
        def of(path: tuple[Any, ...], grad: jax.Array, w: jax.Array) -> jax.Array:
            in_norm = jax.tree_util.keystr(path[-2:-1], simple=True).startswith("bn")
            return (recipe.bias_factor if in_norm else 1.0) * grad + decay * w

        return jax.tree_util.tree_map_with_path(of, grads, params)

    def frozen(updates: Any, params: Any) -> Any:
        return updates if learn_bias else updates | {"whiten": jax.tree.map(jnp.zeros_like, updates["whiten"])}

    momentum = optax.sgd(triangle(peak, steps), recipe.momentum, nesterov=True)
    return optax.chain(optax.stateless(scaled), momentum, optax.stateless(frozen))


def triangle(peak: float, steps: int) -> optax.Schedule:
    """From a fifth of the peak up to it in the first 23 % of the steps, then down to 7 %."""
    rise = max(1, int(0.23 * steps))
    up, down = optax.linear_schedule(0.2 * peak, peak, rise), optax.linear_schedule(peak, 0.07 * peak, steps - rise)
    return optax.join_schedules([up, down], [rise])


def lookahead(ts: training.TrainState, steps: int) -> training.TrainState:
    """Every few steps the network goes back towards its average, further the later it is; in the end it is that."""
    keep = 0.95**LOOKAHEAD * (ts.step / steps) ** 3
    due = ts.step % LOOKAHEAD == 0
    fast = (ts.params, ts.state)
    both = jax.tree.map(lambda slow, fast: jnp.where(due, fast + keep * (slow - fast), slow), ts.ema, fast)
    params, state = jax.tree.map(lambda slow, fast: jnp.where(due, slow, fast), both, fast)
    return ts._replace(params=params, state=state, ema=both)


def score(
    model: Layer, params: Any, state: Any, images: jax.Array, labels: jax.Array, size: int = 2000
) -> tuple[jax.Array, jax.Array]:
    """The accuracy on the images as they are, and with the logits averaged over six views of each."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    views = augment.test_time_views(flip=True, translate=1, padding_mode="reflect")
    size, count = min(size, len(images)), len(images)

    def look(row: jax.Array) -> jax.Array:
        seen = views(normal(images[row]).astype(jnp.bfloat16))[np.array(VIEWS)]
        logits, _ = model.apply(params, state, seen.reshape(-1, *seen.shape[2:]))
        return logits.astype(jnp.float32).reshape(len(VIEWS), size, CLASSES)

    rows = jnp.minimum(jnp.arange(math.ceil(count / size) * size), count - 1).reshape(-1, size)
    logits = jnp.moveaxis(jax.lax.map(look, rows), 1, 0).reshape(len(VIEWS), -1, CLASSES)[:, :count]
    seen = jnp.tensordot(jnp.asarray(WEIGHTS), logits, 1, precision="highest")
    return ops.is_correct(logits[0], labels).mean(), ops.is_correct(seen, labels).mean()
