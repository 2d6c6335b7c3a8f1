"""Flax NNX: modules that hold their arrays, ``nnx.jit``, ``nnx.Optimizer``."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.networks import NETS, RESNETS, blocks
from jaxconv import models
from jaxconv.bench.step_timing import CLASSES, LEARNING_RATE, Runner, random_batch

max_pool = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))


def flatten(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def global_avg_pool(x: jax.Array) -> jax.Array:
    return x.mean((1, 2))


def lenet5(rngs: nnx.Rngs) -> nnx.Module:
    conv = partial(nnx.Conv, kernel_size=(5, 5), padding="VALID", rngs=rngs)
    return nnx.Sequential(
        *(conv(1, 6), nnx.tanh, max_pool),
        *(conv(6, 16), nnx.tanh, max_pool),
        *(flatten, nnx.Linear(400, 120, rngs=rngs), nnx.tanh),
        *(nnx.Linear(120, 84, rngs=rngs), nnx.tanh),
        nnx.Linear(84, CLASSES, rngs=rngs),
    )


def mnist_cnn(rngs: nnx.Rngs) -> nnx.Module:
    conv = partial(nnx.Conv, kernel_size=(3, 3), padding="VALID", rngs=rngs)
    return nnx.Sequential(
        *(conv(1, 32), nnx.relu, max_pool),
        *(conv(32, 64), nnx.relu, max_pool),
        *(conv(64, 64), nnx.relu),
        *(flatten, nnx.Linear(576, 64, rngs=rngs), nnx.relu),
        nnx.Linear(64, CLASSES, rngs=rngs),
    )


def vgg6(rngs: nnx.Rngs) -> nnx.Module:
    conv = partial(nnx.Conv, kernel_size=(3, 3), padding="SAME", rngs=rngs)
    return nnx.Sequential(
        *(conv(3, 32), nnx.relu, conv(32, 32), nnx.relu, max_pool),
        *(conv(32, 64), nnx.relu, conv(64, 64), nnx.relu, max_pool),
        *(conv(64, 128), nnx.relu, conv(128, 128), nnx.relu, max_pool),
        *(flatten, nnx.Linear(2048, CLASSES, rngs=rngs)),
    )


class Block(nnx.Module):
    def __init__(self, inputs: int, features: int, stride: int, *, rngs: nnx.Rngs) -> None:
        conv = partial(nnx.Conv, kernel_size=(3, 3), padding=1, use_bias=False, rngs=rngs)
        self.conv1 = conv(inputs, features, strides=stride)
        self.bn1 = nnx.BatchNorm(features, rngs=rngs)
        self.conv2 = conv(features, features)
        self.bn2 = nnx.BatchNorm(features, rngs=rngs)
        self.stride, self.extra_channels = stride, features - inputs

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (0, self.extra_channels)))
        return nnx.relu(x + y)


def resnet(name: str, rngs: nnx.Rngs) -> nnx.Module:
    return nnx.Sequential(
        nnx.Conv(3, 16, kernel_size=(3, 3), padding=1, use_bias=False, rngs=rngs),
        *(nnx.BatchNorm(16, rngs=rngs), nnx.relu),
        *[Block(*sizes, rngs=rngs) for sizes in blocks(name)],
        *(global_avg_pool, nnx.Linear(64, CLASSES, rngs=rngs)),
    )


MAKE: dict[str, Callable[..., nnx.Module]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg6": vgg6,
    **{name: partial(resnet, name) for name in RESNETS},
}
assert set(MAKE) == set(NETS)


def build(model: str, batch: int) -> Runner:
    x, y = map(jnp.asarray, random_batch(models.get_model(model).input_shape, batch))
    net = MAKE[model](nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, optax.adam(LEARNING_RATE), wrt=nnx.Param)

    def loss_of(net: nnx.Module, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

    @nnx.jit
    def train_step(net: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(loss_of)(net, x, y)
        optimizer.update(net, grads)
        return loss

    def steps(count: int) -> float:
        for _ in range(count):
            loss = train_step(net, optimizer, x, y)
        jax.block_until_ready(nnx.state(net))
        return float(loss)

    return Runner([leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param))], steps)
