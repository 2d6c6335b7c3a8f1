"""The rest of a network: activations, dense layers, and the loss."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import ops
from jaxconv.ops import backward
from jaxconv.testing.cases.base import Asked, Contest, Entry, of_x, random_parameters, random_x, with_gradient


def _dense(asked: Asked) -> Contest:
    parameters = random_parameters(asked, (asked.shape[1], asked.features), (asked.features,))
    functions: dict[str, Callable[..., jax.Array]] = {
        "matmul": partial(ops.dense, precision="highest"),
        "sum": lambda x, kernel, bias: (x[:, :, None] * kernel[None]).sum(axis=1) + bias[None],
        "by hand": with_gradient(
            partial(ops.dense, precision="highest"), lambda x, kernel, bias, dy: backward.dense(x, kernel, dy)
        ),
    }
    return Contest(functions, (random_x(asked), *parameters), ("x", "kernel", "bias"))


def _loss(asked: Asked) -> Contest:
    label = jnp.asarray(np.random.default_rng(asked.seed + 1).integers(0, asked.shape[1], asked.shape[0]), jnp.int32)
    true = jax.nn.one_hot(label, asked.shape[1], dtype=asked.dtype)
    functions: dict[str, Callable[..., jax.Array]] = {
        "optax": lambda logits: ops.softmax_cross_entropy(logits, label),
        "-log softmax": lambda logits: -(true * jnp.log(jax.nn.softmax(logits))).sum(axis=1),
    }
    return of_x(asked, functions, lambda logits, dy: backward.softmax_cross_entropy(logits, label, dy), name="logits")


def _elementwise(functions: Mapping[str, Callable[..., jax.Array]], gradient: Callable[..., jax.Array]) -> Entry:
    return Entry(lambda asked: of_x(asked, functions, gradient), frozenset({"kinks"}), spatial=False)


DENSE = {
    "relu": _elementwise(
        {
            "jax.nn": ops.relu,
            "maximum": lambda x: jnp.maximum(x, jnp.zeros((), x.dtype)),
            "where": lambda x: jnp.where(x > 0, x, jnp.zeros((), x.dtype)),
        },
        backward.relu,
    ),
    "tanh": _elementwise({"jax.nn": ops.tanh, "exp": lambda x: 1 - 2 / (jnp.exp(2 * x) + 1)}, backward.tanh),
    "sigmoid": _elementwise({"jax.nn": ops.sigmoid, "exp": lambda x: 1 / (1 + jnp.exp(-x))}, backward.sigmoid),
    "dense": Entry(_dense, frozenset({"features"}), spatial=False, shape=(64, 10)),
    "softmax_cross_entropy": Entry(_loss, frozenset({"kinks"}), spatial=False, shape=(64, 10)),
}
