"""Plain JAX: functions of a dict of arrays, ``lax`` convolutions, one jitted step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.nn import relu, tanh
from jax.nn.initializers import glorot_uniform

from benchmarks.networks import NETS, RESNETS, blocks
from jaxconv import models
from jaxconv.bench.step_timing import CLASSES, LEARNING_RATE, Runner, random_batch

Tree = dict[str, Any]


def conv(x: jax.Array, p: Tree, stride: int = 1, padding: Any = "VALID") -> jax.Array:
    dimension_numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, p["kernel"], (stride, stride), padding, dimension_numbers=dimension_numbers)
    return y + p["bias"] if "bias" in p else y


def dense(x: jax.Array, p: Tree) -> jax.Array:
    return x @ p["kernel"] + p["bias"]


def max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def flatten(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def lenet5(p: Tree, s: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    x = max_pool(tanh(conv(x, p["conv1"])))
    x = max_pool(tanh(conv(x, p["conv2"])))
    x = tanh(dense(flatten(x), p["dense1"]))
    x = tanh(dense(x, p["dense2"]))
    return dense(x, p["dense3"]), s


def mnist_cnn(p: Tree, s: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    x = max_pool(relu(conv(x, p["conv1"])))
    x = max_pool(relu(conv(x, p["conv2"])))
    x = relu(conv(x, p["conv3"]))
    x = relu(dense(flatten(x), p["dense1"]))
    return dense(x, p["dense2"]), s


def vgg6(p: Tree, s: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    for i in (1, 3, 5):
        x = relu(conv(x, p[f"conv{i}"], padding="SAME"))
        x = relu(conv(x, p[f"conv{i + 1}"], padding="SAME"))
        x = max_pool(x)
    return dense(flatten(x), p["dense1"]), s


def resnet(name: str, p: Tree, s: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    new_state = {}

    def conv_bn(x: jax.Array, i: int, stride: int = 1) -> jax.Array:
        x = conv(x, p[f"conv{i}"], stride, ((1, 1), (1, 1)))
        y, new_state[f"bn{i}"] = batch_norm(x, p[f"bn{i}"], s[f"bn{i}"])
        return y

    x = relu(conv_bn(x, 0))
    for b, (inputs, features, stride) in enumerate(blocks(name)):
        y = relu(conv_bn(x, 2 * b + 1, stride))
        y = conv_bn(y, 2 * b + 2)
        if stride > 1:
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, features - inputs)))
        x = relu(x + y)
    return dense(x.mean((1, 2)), p["dense1"]), new_state


def batch_norm(x: jax.Array, p: Tree, s: Tree) -> tuple[jax.Array, Tree]:
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    y = (x - mean) * (p["scale"] * lax.rsqrt(var + 1e-5)) + p["bias"]
    return y, {"mean": 0.9 * s["mean"] + 0.1 * mean, "var": 0.9 * s["var"] + 0.1 * var}


# Kernel shapes: (H, W, inputs, features), and (inputs, features) of dense layers.
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "lenet5": {
        "conv1": (5, 5, 1, 6),
        "conv2": (5, 5, 6, 16),
        "dense1": (400, 120),
        "dense2": (120, 84),
        "dense3": (84, CLASSES),
    },
    "mnist_cnn": {
        "conv1": (3, 3, 1, 32),
        "conv2": (3, 3, 32, 64),
        "conv3": (3, 3, 64, 64),
        "dense1": (576, 64),
        "dense2": (64, CLASSES),
    },
    "vgg6": {
        "conv1": (3, 3, 3, 32),
        "conv2": (3, 3, 32, 32),
        "conv3": (3, 3, 32, 64),
        "conv4": (3, 3, 64, 64),
        "conv5": (3, 3, 64, 128),
        "conv6": (3, 3, 128, 128),
        "dense1": (2048, CLASSES),
    },
}


def init(name: str, key: jax.Array) -> tuple[Tree, Tree]:
    if name not in RESNETS:
        keys = jax.random.split(key, len(SIZES[name]))
        return {
            layer: {"kernel": glorot_uniform()(key, size), "bias": jnp.zeros(size[-1])}
            for (layer, size), key in zip(SIZES[name].items(), keys, strict=True)
        }, {}
    convs = [(3, 16), *[size for i, o, _ in blocks(name) for size in ((i, o), (o, o))]]
    p: Tree = {"dense1": {"kernel": glorot_uniform()(key, (64, CLASSES)), "bias": jnp.zeros(CLASSES)}}
    s: Tree = {}
    for i, (inputs, features) in enumerate(convs):
        p[f"conv{i}"] = {"kernel": glorot_uniform()(jax.random.fold_in(key, i), (3, 3, inputs, features))}
        p[f"bn{i}"] = {"scale": jnp.ones(features), "bias": jnp.zeros(features)}
        s[f"bn{i}"] = {"mean": jnp.zeros(features), "var": jnp.ones(features)}
    return p, s


APPLY: dict[str, Callable[[Tree, Tree, jax.Array], tuple[jax.Array, Tree]]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg6": vgg6,
    **{name: partial(resnet, name) for name in RESNETS},
}
assert set(APPLY) == set(NETS)


def build(model: str, batch: int) -> Runner:
    x, y = map(jnp.asarray, random_batch(models.get_model(model).input_shape, batch))
    apply, optimizer = APPLY[model], optax.adam(LEARNING_RATE)
    p, s = jax.jit(partial(init, model))(jax.random.key(0))
    opt_state = optimizer.init(p)

    def loss_of(p: Tree, s: Tree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Tree]:
        logits, s = apply(p, s, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), s

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train_step(p: Tree, s: Tree, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Tree, Tree, Any, jax.Array]:
        (loss, s), grads = jax.value_and_grad(loss_of, has_aux=True)(p, s, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, p)
        return optax.apply_updates(p, updates), s, opt_state, loss

    def steps(count: int) -> float:
        nonlocal p, s, opt_state
        for _ in range(count):
            p, s, opt_state, loss = train_step(p, s, opt_state, x, y)
        jax.block_until_ready(p)
        return float(loss)

    return Runner([leaf.size for leaf in jax.tree.leaves(p)], steps)
