"""Back-propagation by hand: whole networks whose gradients are derived on paper, with no automatic differentiation.

A network is a list of steps. Going forward, each turns its input into an output, and the inputs are kept. Going
back, each turns the gradient of its output into the gradients of its input and of its parameters: the chain rule is
the loop in :func:`value_and_grad`, and the derivatives are those of :mod:`jaxconv.ops.backward`.

The parameters are those of the layers' models of the same names, so that both can be asked for the same gradients.
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
    """One operation, there and back.

    Attributes:
        forward: ``(x, **parameters) -> y``.
        backward: ``(x, dy, **parameters) -> dx`` or, with parameters, ``(dx, d_kernel, d_bias)``.
        name: of its kernel and bias among the parameters, if it has any.
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
    """The mean cross-entropy of a network, and its gradient by every parameter.

    Args:
        name: ``"lenet5"`` or ``"mnist_cnn"``.
        params: as the model of that name makes them.
        images: ``(N, H, W, C)``.
        label: class numbers, ``(N,)``.

    Returns:
        What ``jax.value_and_grad`` of the same loss returns: a number, and a dict like ``params``.

    Raises:
        InputError: a network that is not derived here.

    Lecture rows 001-20 to 001-25.

    >>> from jaxconv.models import lenet5
    >>> params, _ = jax.eval_shape(lambda key: lenet5().init(key, (32, 32, 1)), jax.random.key(0))
    >>> images, label = jnp.ones((2, 32, 32, 1)), jnp.array([3, 8])
    >>> loss, gradients = jax.eval_shape(partial(value_and_grad, "lenet5"), params, images, label)
    >>> jax.tree.map(jnp.shape, gradients["conv1"])
    {'bias': (6,), 'kernel': (5, 5, 1, 6)}
    """
    checks.one_of("network derived by hand", name, MANUAL_NETWORKS)
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
