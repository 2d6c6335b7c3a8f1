"""Train a CIFAR-10 network by the recipe of airbench94 in one function, ``run(recipe, key, images) -> accuracies``.

The first convolution whitens 2×2 patches; only its bias is trained, in the first epochs. The other convolutions start
as the identity. Batch norms have no scale, and their biases have a 64 times higher learning rate. The loss uses label
smoothing, the learning-rate schedule is triangular, and every five steps a lookahead update interpolates the parameters
with their average. ``cifar10_speedrun.py`` times it.
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
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # per channel of the CIFAR-10 training images
WHITEN_SIZE, WHITEN_IMAGES = 2, 5000  # window of the first layer, and number of images for its covariance
LOOKAHEAD = 5  # steps between lookahead updates
VIEWS = (0, 1, 4, 5, 6, 9)  # in augment.test_time_views: identity, up-left, down-right, and their mirror images
WEIGHTS = (0.25, 0.125, 0.125) * 2
# PyTorch's default initializer: uniform in ±1 / √fan_in.
UNIFORM = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The paper's hyperparameters."""

    epochs: float = 9.9
    """Number of training epochs."""
    batch_size: int = 1024
    """Images per step; the remainder of an epoch is dropped."""
    learning_rate: float = 11.5
    """Peak learning rate, for the loss summed over 1024 examples; independent of the momentum."""
    momentum: float = 0.85
    """Nesterov momentum."""
    weight_decay: float = 0.0153
    """Weight decay for 1024 examples, independent of the learning rate."""
    bias_factor: float = 64.0
    """Learning-rate multiplier of batch-norm biases."""
    label_smoothing: float = 0.2
    """Fraction of the target that is distributed over all classes."""
    whiten_epochs: int = 3
    """Epochs in which the bias of the first layer is trained."""
    widths: tuple[int, int, int] = (64, 256, 256)
    """Filters of the three blocks."""


class Images(NamedTuple):
    """Training and test set on the device: uint8 images and int32 labels."""

    images: jax.Array
    labels: jax.Array
    test_images: jax.Array
    test_labels: jax.Array


class Run(NamedTuple):
    """Losses and test accuracies of a training run."""

    losses: jax.Array  # (steps,)
    plain: jax.Array  # test accuracy without test-time augmentation
    accuracy: jax.Array  # test accuracy averaged over six views of each image


def run(recipe: Recipe, key: jax.Array, dataset: Images) -> Run:
    """Train a network and evaluate it; jit it with a fixed recipe."""
    steps_per_epoch = len(dataset.images) // recipe.batch_size
    if steps_per_epoch < 1:
        raise InputError(f"speedrun: batch_size={recipe.batch_size} is more than the {len(dataset.images)} images")
    steps = math.ceil(steps_per_epoch * recipe.epochs)
    init_key, order_key, flip_key, augment_key = jax.random.split(key, 4)
    model = network(recipe)
    kernel = filters.whitening_kernel(normalize(dataset.images[:WHITEN_IMAGES]), WHITEN_SIZE)
    ts = training.create_train_state(model, make_optimizer(recipe, steps), init_key, dataset.images.shape[1:])
    state = ts.state | {"whiten": {"kernel": kernel}}
    ts = ts._replace(state=state, ema=(ts.params, state))

    def train_part(ts: training.TrainState, rows: jax.Array, epochs: jax.Array, learn_bias: bool) -> Any:
        """Run the steps of these batches, with the bias of the first layer trained or frozen."""
        step = training.make_train_step(
            model,
            make_optimizer(recipe, steps, learn_bias=learn_bias),
            augment=augment.random_translation(2, padding_mode="reflect"),
            label_smoothing=recipe.label_smoothing,
            dtype="bfloat16",
            skip_nonfinite=False,
            jit=False,
        )

        def body(ts: training.TrainState, x: tuple[jax.Array, jax.Array]) -> tuple[training.TrainState, jax.Array]:
            ts, metrics = step(ts, make_batch(flip_key, dataset, *x), augment_key)
            return lookahead(ts, steps), metrics.sums["loss"] / metrics.count

        return jax.lax.scan(body, ts, (rows, epochs))

    rows, epochs = batches(order_key, len(dataset.images), recipe.batch_size, steps)
    frozen_from, losses = min(steps, recipe.whiten_epochs * steps_per_epoch), []
    for part, learn_bias in ((slice(0, frozen_from), True), (slice(frozen_from, steps), False)):
        ts, part_losses = train_part(ts, rows[part], epochs[part], learn_bias)
        losses.append(part_losses)
    plain, over_views = score(model, *ts.eval_variables, dataset.test_images, dataset.test_labels)
    return Run(jnp.concatenate(losses), plain, over_views)


def normalize(images: jax.Array) -> jax.Array:
    """Normalize uint8 images to mean 0 and standard deviation 1 in each channel."""
    mean, deviation = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (MEAN, DEVIATION))
    return (training.to_float(images) - mean) / deviation


def make_batch(key: jax.Array, dataset: Images, indices: jax.Array, epoch: jax.Array) -> training.Batch:
    """Return the batch of a step; images are mirrored in every other epoch."""
    return training.Batch(
        augment.alternating_flip(key, normalize(dataset.images[indices]), indices, epoch), dataset.labels[indices]
    )


def batches(key: jax.Array, num_images: int, size: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """Return image indices ``(steps, size)`` and the epoch of each step; epochs are shuffled, remainders dropped."""
    steps_per_epoch = num_images // size
    keys = jax.random.split(key, math.ceil(steps / steps_per_epoch))
    orders = jax.vmap(lambda key: jax.random.permutation(key, num_images)[: steps_per_epoch * size])(keys)
    return orders.reshape(-1, size)[:steps], jnp.arange(steps) // steps_per_epoch


def network(recipe: Recipe) -> Layer:
    """Build the network of seven convolutions; the kernel of the first one is not trained."""
    smooth = functools.partial(gelu, approximate=False)

    def conv(features: int) -> Layer:
        return Conv(features, 3, padding="SAME", use_bias=False, kernel_init=dirac(UNIFORM))

    def norm() -> Layer:
        return BatchNorm(momentum=0.6, eps=1e-12, use_scale=False)

    def block(features: int) -> Layer:
        return serial(conv(features), MaxPool(2), norm(), smooth, conv(features), norm(), smooth)

    head = Dense(CLASSES, use_bias=False, kernel_init=UNIFORM)
    return serial(whiten(), smooth, *map(block, recipe.widths), MaxPool(3), flatten, head, divide_by_nine)


def whiten() -> Layer:
    """Build a convolution with a trained bias, whose kernel is state and has no gradient."""

    def init(key: jax.Array, input_shape: tuple[int, ...]) -> Any:
        size = (WHITEN_SIZE, WHITEN_SIZE, input_shape[-1])
        features = 2 * math.prod(size)
        return {"bias": jnp.zeros(features)}, {"kernel": jnp.zeros((*size, features))}

    def apply(params: Any, state: Any, x: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> Any:
        return ops.conv(x, state["kernel"].astype(x.dtype), params["bias"]), state

    return Layer("whiten", init, apply, name="whiten")


def divide_by_nine(x: jax.Array) -> jax.Array:
    return x / 9


def make_optimizer(recipe: Recipe, steps: int, *, learn_bias: bool = True) -> optax.GradientTransformation:
    """Build Nesterov momentum on ``factor · gradient + decay · w``; ``factor`` is large for batch-norm biases.

    Accumulated momentum scales a step by 1 + 1 / (1 − momentum), so the learning rate is divided by that. The loss is a
    mean here, so the learning rate is proportional to the batch size.
    """
    peak = recipe.learning_rate * recipe.batch_size / 1024 / (1 + 1 / (1 - recipe.momentum))
    decay = recipe.weight_decay / recipe.learning_rate

    def scale_gradients(grads: Any, params: Any) -> Any:
        def scale_gradient(path: tuple[Any, ...], grad: jax.Array, w: jax.Array) -> jax.Array:
            is_norm = jax.tree_util.keystr(path[-2:-1], simple=True).startswith("bn")
            return (recipe.bias_factor if is_norm else 1.0) * grad + decay * w

        return jax.tree_util.tree_map_with_path(scale_gradient, grads, params)

    def freeze_whitening(updates: Any, params: Any) -> Any:
        return updates if learn_bias else updates | {"whiten": jax.tree.map(jnp.zeros_like, updates["whiten"])}

    momentum = optax.sgd(triangle(peak, steps), recipe.momentum, nesterov=True)
    return optax.chain(optax.stateless(scale_gradients), momentum, optax.stateless(freeze_whitening))


def triangle(peak: float, steps: int) -> optax.Schedule:
    """Build a triangular schedule: from 20 % of the peak to 100 % at 23 % of the steps, then down to 7 %."""
    rise = max(1, int(0.23 * steps))
    up, down = optax.linear_schedule(0.2 * peak, peak, rise), optax.linear_schedule(peak, 0.07 * peak, steps - rise)
    return optax.join_schedules([up, down], [rise])


def lookahead(ts: training.TrainState, steps: int) -> training.TrainState:
    """Interpolate the parameters with their average every ``LOOKAHEAD`` steps, with a weight that grows to the end."""
    weight = 0.95**LOOKAHEAD * (ts.step / steps) ** 3
    is_due = ts.step % LOOKAHEAD == 0
    fast = (ts.params, ts.state)
    average = jax.tree.map(lambda slow, fast: jnp.where(is_due, fast + weight * (slow - fast), slow), ts.ema, fast)
    params, state = jax.tree.map(lambda slow, fast: jnp.where(is_due, slow, fast), average, fast)
    return ts._replace(params=params, state=state, ema=average)


def score(
    model: Layer, params: Any, state: Any, images: jax.Array, labels: jax.Array, size: int = 2000
) -> tuple[jax.Array, jax.Array]:
    """Return the accuracy without test-time augmentation, and with the logits averaged over six views."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    views = augment.test_time_views(flip=True, translate=1, padding_mode="reflect")
    size, num_images = min(size, len(images)), len(images)

    def forward(indices: jax.Array) -> jax.Array:
        inputs = views(normalize(images[indices]).astype(jnp.bfloat16))[np.array(VIEWS)]
        logits, _ = model.apply(params, state, inputs.reshape(-1, *inputs.shape[2:]))
        return logits.astype(jnp.float32).reshape(len(VIEWS), size, CLASSES)

    rows = jnp.minimum(jnp.arange(math.ceil(num_images / size) * size), num_images - 1).reshape(-1, size)
    logits = jnp.moveaxis(jax.lax.map(forward, rows), 1, 0).reshape(len(VIEWS), -1, CLASSES)[:, :num_images]
    averaged = jnp.tensordot(jnp.asarray(WEIGHTS), logits, 1, precision="highest")
    return ops.is_correct(logits[0], labels).mean(), ops.is_correct(averaged, labels).mean()
