"""Equinox: modules that are pytrees, one example at a time, channels first, under ``vmap``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from equinox import nn

from benchmarks.networks import NETS, RESNETS, blocks
from jaxconv import models
from jaxconv.bench.step_timing import CLASSES, LEARNING_RATE, Runner, random_batch

Keys = Callable[[], jax.Array]  # returns a new key per call

relu, tanh, flatten = nn.Lambda(jax.nn.relu), nn.Lambda(jnp.tanh), nn.Lambda(jnp.ravel)
global_avg_pool = nn.Lambda(lambda x: x.mean((1, 2)))
max_pool = nn.MaxPool2d(2, 2)


def lenet5(key: Keys) -> eqx.Module:
    return nn.Sequential(
        [
            *(nn.Conv2d(1, 6, 5, key=key()), tanh, max_pool),
            *(nn.Conv2d(6, 16, 5, key=key()), tanh, max_pool),
            *(flatten, nn.Linear(400, 120, key=key()), tanh),
            *(nn.Linear(120, 84, key=key()), tanh),
            nn.Linear(84, CLASSES, key=key()),
        ]
    )


def mnist_cnn(key: Keys) -> eqx.Module:
    return nn.Sequential(
        [
            *(nn.Conv2d(1, 32, 3, key=key()), relu, max_pool),
            *(nn.Conv2d(32, 64, 3, key=key()), relu, max_pool),
            *(nn.Conv2d(64, 64, 3, key=key()), relu),
            *(flatten, nn.Linear(576, 64, key=key()), relu),
            nn.Linear(64, CLASSES, key=key()),
        ]
    )


def vgg6(key: Keys) -> eqx.Module:
    def stage(inputs: int, features: int) -> list[eqx.Module]:
        return [
            *(nn.Conv2d(inputs, features, 3, padding=1, key=key()), relu),
            *(nn.Conv2d(features, features, 3, padding=1, key=key()), relu),
            max_pool,
        ]

    ends = [flatten, nn.Linear(2048, CLASSES, key=key())]
    return nn.Sequential([*stage(3, 32), *stage(32, 64), *stage(64, 128), *ends])


def batch_norm(features: int) -> eqx.Module:
    return nn.BatchNorm(features, axis_name="batch", mode="batch")


class Block(nn.StatefulLayer):
    conv1: nn.Conv2d
    bn1: nn.BatchNorm
    conv2: nn.Conv2d
    bn2: nn.BatchNorm
    stride: int = eqx.field(static=True)
    extra_channels: int = eqx.field(static=True)

    def __init__(self, inputs: int, features: int, stride: int, *, key: Keys) -> None:
        self.conv1 = nn.Conv2d(inputs, features, 3, stride=stride, padding=1, use_bias=False, key=key())
        self.bn1 = batch_norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, use_bias=False, key=key())
        self.bn2 = batch_norm(features)
        self.stride, self.extra_channels = stride, features - inputs

    def __call__(self, x: jax.Array, state: nn.State, *, key: Any = None) -> tuple[jax.Array, nn.State]:
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        if self.stride > 1:
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, self.extra_channels), (0, 0), (0, 0)))
        return jax.nn.relu(x + y), state


def resnet(name: str, key: Keys) -> eqx.Module:
    return nn.Sequential(
        [
            *(nn.Conv2d(3, 16, 3, padding=1, use_bias=False, key=key()), batch_norm(16), relu),
            *[Block(*sizes, key=key) for sizes in blocks(name)],
            *(global_avg_pool, nn.Linear(64, CLASSES, key=key())),
        ]
    )


MAKE: dict[str, Callable[..., eqx.Module]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg6": vgg6,
    **{name: partial(resnet, name) for name in RESNETS},
}
assert set(MAKE) == set(NETS)


def build(model: str, batch: int) -> Runner:
    images, labels = random_batch(models.get_model(model).input_shape, batch)
    x, y = jnp.asarray(images.transpose(0, 3, 1, 2)), jnp.asarray(labels)
    keys = iter(jax.random.split(jax.random.key(0), 1000))
    net, state = nn.make_with_state(MAKE[model])(lambda: next(keys))
    optimizer = optax.adam(LEARNING_RATE)
    opt_state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))

    def loss_of(net: eqx.Module, state: nn.State, x: jax.Array, y: jax.Array) -> tuple[jax.Array, nn.State]:
        batched = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, state = batched(x, state)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), state

    @eqx.filter_jit
    def train_step(net: eqx.Module, state: nn.State, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
        (loss, state), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(net, state, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(net, eqx.is_inexact_array))
        return eqx.apply_updates(net, updates), state, opt_state, loss

    def steps(count: int) -> float:
        nonlocal net, state, opt_state
        for _ in range(count):
            net, state, opt_state, loss = train_step(net, state, opt_state, x, y)
        jax.block_until_ready(eqx.filter(net, eqx.is_array))
        return float(loss)

    return Runner([leaf.size for leaf in jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array))], steps)
