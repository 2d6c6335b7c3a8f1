"""How long the gradients of a network are, layer by layer, and its steps: here those that vanish are seen."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxconv import ops
from jaxconv.errors import InputError
from jaxconv.explain.intermediates import check_images
from jaxconv.explain.owners import with_kernel
from jaxconv.explain.scores import classes
from jaxconv.layers import Layer, as_layer


def gradient_norms(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    key: jax.Array | None = None,
    train: bool = True,
) -> dict[str, jax.Array]:
    """``‖d loss / d kernel‖`` of every layer that has a kernel; the loss is the mean cross-entropy of the images.

    Gradients that vanish are smaller by orders of magnitude in the first layers than in the last ones.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, one batch.
        labels: ``(N,)`` class numbers.
        key: of dropout.
        train: as in training, with the batch's statistics and dropout; False: as in use.

    Returns:
        A number for each layer, in the order of the layers. (``jit`` returns dicts sorted by name.)

    Raises:
        InputError: no image, labels that do not go with them, or dropout without a key.

    Lecture row 003-22.

    >>> from jaxconv import models
    >>> model = models.mlp(classes=2)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> found = gradient_norms(model, params, state, jnp.ones((1, 2, 2, 1)), jnp.array([0]))
    >>> list(found), all(norm > 0 for norm in found.values())
    (['dense1', 'dense2', 'dense3'], True)
    """
    gradient = _gradient("gradient_norms", model, params, state, images, labels, key, train)
    return {name: _norm(kernel) for name, kernel in with_kernel(model, gradient).items()}


def update_norms(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    optimizer: optax.GradientTransformation,
    opt_state: Any = None,
    key: jax.Array | None = None,
    train: bool = True,
) -> dict[str, jax.Array]:
    """``‖Δ‖ / ‖kernel‖`` of every layer that has one: how much of itself one step of the optimizer changes.

    About 0.001 is healthy, says Karpathy (https://cs231n.github.io/neural-networks-3/#ratio): with far more the
    learning rate is too high, with far less the layer stands still.

    Args:
        model, params, state, images, labels: as for :func:`gradient_norms`.
        optimizer: from optax, or :func:`jaxconv.train.make_optimizer`.
        opt_state: its own; by default that of its first step.
        key, train: as for :func:`gradient_norms`.

    Returns:
        A number for each layer, in the order of the layers; infinite for a kernel of zeros that is changed.

    Raises:
        InputError: as :func:`gradient_norms`.

    Lecture row 003-22.

    >>> from jaxconv import models
    >>> model = models.mlp(classes=2)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> x, label = jnp.ones((1, 2, 2, 1)), jnp.array([0])
    >>> list(update_norms(model, params, state, x, label, optimizer=optax.sgd(0.1)))
    ['dense1', 'dense2', 'dense3']
    """
    gradient = _gradient("update_norms", model, params, state, images, labels, key, train)
    updates, _ = optimizer.update(gradient, optimizer.init(params) if opt_state is None else opt_state, params)
    kernels = with_kernel(model, params)
    return {name: _norm(delta) / _norm(kernels[name]) for name, delta in with_kernel(model, updates).items()}


def _gradient(
    function: str, model: Layer, params: Any, state: Any, images: Any, labels: Any, key: jax.Array | None, train: bool
) -> Any:
    model, x, labels = as_layer(model), check_images(function, images), jnp.asarray(labels)
    if labels.shape != x.shape[:1]:
        raise InputError(f"{function}: labels {labels.shape} should be one for each of the {len(x)} images")

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply(params, state, x, train=train, key=key)
        if logits.ndim != 2:
            raise InputError(f"{function}: an output {logits.shape} has no classes: (N, classes) is wanted")
        return jnp.mean(ops.softmax_cross_entropy(logits, classes(function, logits, labels)))

    return jax.grad(loss)(params)


def _norm(array: jax.Array) -> jax.Array:
    """Scaled before it is squared: squares of gradients that vanish are 0 in float32."""
    largest = jnp.max(jnp.abs(array))
    scale = jnp.where(largest > 0, largest, 1).astype(array.dtype)
    return scale * jnp.sqrt(jnp.sum((array / scale) ** 2))
