"""Manual backpropagation: networks with hand-derived gradients, without automatic differentiation.

A network is a list of steps. The forward pass applies them in order and stores their inputs. The backward pass applies
them in reverse: each step maps the gradient of its output to the gradients of its input and parameters. The chain rule
is the loop in :func:`value_and_grad`; the derivatives are those of :mod:`jaxconv.ops.backward`.

Parameters have the structure of the models of the same names, so their gradients can be compared directly.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import checks, ops
from jaxconv.ops import backward

Params = dict[str, Any]


class ManualOp(NamedTuple):
    """One operation with its forward and backward functions.

    Attributes:
        forward: ``(x, **parameters) -> y``.
        backward: ``(x, dy, **parameters) -> dx`` or, with parameters, ``(dx, d_kernel, d_bias)``.
        name: key of its kernel and bias in the params; None if it has no parameters.
    """

    forward: Callable[..., jax.Array]
    backward: Callable[..., Any]
    name: str | None = None


def conv(name: str, **options: Any) -> ManualOp:
    return ManualOp(
        partial(ops.conv, impl="explicit", **options),
        lambda x, dy, kernel, bias: backward.conv(x, kernel, dy, **options),
        name,
    )


def dense(name: str) -> ManualOp:
    return ManualOp(ops.dense, lambda x, dy, kernel, bias: backward.dense(x, kernel, dy), name)


def max_pool(window_shape: int) -> ManualOp:
    return ManualOp(
        partial(ops.max_pool, window_shape=window_shape), partial(backward.max_pool, window_shape=window_shape)
    )


FLATTEN = ManualOp(ops.flatten, backward.flatten)
RELU = ManualOp(ops.relu, backward.relu)
TANH = ManualOp(ops.tanh, backward.tanh)

MANUAL_NETWORKS: dict[str, list[ManualOp]] = {
    "lenet5": [
        *(conv("conv1"), TANH, max_pool(2)),
        *(conv("conv2"), TANH, max_pool(2)),
        *(FLATTEN, dense("dense1"), TANH, dense("dense2"), TANH, dense("dense3")),
    ],
    "mnist_cnn": [
        *(conv("conv1"), RELU, max_pool(2)),
        *(conv("conv2"), RELU, max_pool(2)),
        *(conv("conv3"), RELU),
        *(FLATTEN, dense("dense1"), RELU, dense("dense2")),
    ],
}


def value_and_grad(name: str, params: Params, images: jax.Array, label: jax.Array) -> tuple[jax.Array, Params]:
    """Compute the mean cross-entropy of a network and its gradients with respect to the parameters.

    Args:
        name: ``"lenet5"`` or ``"mnist_cnn"``.
        params: parameters, as returned by the ``init`` of the model with this name.
        images: batch ``(N, H, W, C)``.
        label: class indices, ``(N,)``.

    Returns:
        The loss, and gradients with the structure of ``params``, as from ``jax.value_and_grad`` of the same loss.

    Raises:
        InputError: if the network has no manual backpropagation.

    Lecture rows 001-20 to 001-25.

    >>> from jaxconv.models import lenet5
    >>> params, _ = jax.eval_shape(lambda key: lenet5().init(key, (32, 32, 1)), jax.random.key(0))
    >>> images, label = jnp.ones((2, 32, 32, 1)), jnp.array([3, 8])
    >>> loss, gradients = jax.eval_shape(partial(value_and_grad, "lenet5"), params, images, label)
    >>> jax.tree.map(jnp.shape, gradients["conv1"])
    {'bias': (6,), 'kernel': (5, 5, 1, 6)}
    """
    checks.one_of("network with manual backpropagation", name, MANUAL_NETWORKS)
    steps = MANUAL_NETWORKS[name]
    inputs, x = [], images
    for step in steps:
        inputs.append(x)
        x = step.forward(x, **(params[step.name] if step.name else {}))
    loss = ops.softmax_cross_entropy(x, label).mean()

    gradients = {}
    dy = backward.softmax_cross_entropy(x, label, jnp.full(len(x), 1 / len(x), x.dtype))
    for step, x in zip(reversed(steps), reversed(inputs), strict=True):
        if step.name is None:
            dy = step.backward(x, dy)
        else:
            dy, d_kernel, d_bias = step.backward(x, dy, **params[step.name])
            gradients[step.name] = {"kernel": d_kernel, "bias": d_bias}
    return loss, gradients
