"""The gradient with another rule for relu on the way back: guided back-propagation and the deconvnet."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError
from jaxconv.explain.attribution.gradient_methods import gradient
from jaxconv.explain.attribution.targets import asked
from jaxconv.explain.scores import Score
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers
from jaxconv.train.diagnostics import RECTIFIERS

Function = Callable[[jax.Array], jax.Array]


def guided_backprop(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    layer: str | None = None,
    score: Score | None = None,
) -> jax.Array:
    """The gradient, but through a relu only what is positive goes back, and only where its input was.

    At every relu ``dx = dy · [dy > 0] · [x > 0]``; all else, the max pools too, passes its gradient on. What remains
    are the pixels that make the answer larger by making every feature on the way larger.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, label, layer, score: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: a model without a relu, of which this would be the gradient; or what saliency refuses.

    Source: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806, section 3.4. Lecture row 001-13.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: -x.sum(axis=-1))
    >>> guided_backprop(model, {}, {}, jnp.array([[1., 2.]]), score=lambda y: y)
    Array([[0., 0.]], dtype=float32)
    """
    back = _by_rule(lambda function, x, dy: jax.vjp(function, x)[1](jnp.maximum(dy, 0))[0])
    return _rectified("guided_backprop", back, model, params, state, images, label, layer, score)


def deconvnet(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    layer: str | None = None,
    score: Score | None = None,
) -> jax.Array:
    """What a deconvolutional network projects back to the pixels: relu rectifies on the way back as on the way there.

    At every relu ``dx = dy · [dy > 0]``, wherever its input was; max pools send back to the pixel that was the
    largest (the "switches") and convolutions with the transposed kernel, as their gradients do. Of one filter,
    ``layer="conv2", score=strongest(3)`` projects its strongest answer, up to a factor: that answer.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, label, layer, score: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: a model without a relu, of which this would be the gradient; or what saliency refuses.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, section 2.1. Lecture row 002-05.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: x.sum(axis=-1))
    >>> x = jnp.array([[1., 2.]])                                                   # relu sees -3 and 1
    >>> [f(model, {}, {}, x, score=lambda y: y).tolist() for f in (deconvnet, guided_backprop)]
    [[[0.0, -1.0]], [[-1.0, 1.0]]]
    """
    back = _by_rule(lambda function, x, dy: jnp.maximum(dy, 0))
    return _rectified("deconvnet", back, model, params, state, images, label, layer, score)


def _by_rule(rule: Callable[[Function, jax.Array, jax.Array], jax.Array]) -> Callable[[Function, jax.Array], jax.Array]:
    """``function(x)`` with ``rule(function, x, dy)`` in place of its gradient."""

    def call(function: Function, x: jax.Array) -> jax.Array:
        return function(x)

    replaced = jax.custom_vjp(call, nondiff_argnums=(0,))
    replaced.defvjp(lambda function, x: (function(x), x), lambda function, x, dy: (rule(function, x, dy),))
    return replaced


def _rectified(
    name: str,
    relu: Callable[[Function, jax.Array], jax.Array],
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any,
    layer: str | None,
    score: Score | None,
) -> jax.Array:
    kinds = [part.kind for part in named_layers(model).values()]
    if not set(RECTIFIERS) & set(kinds):
        raise InputError(
            f"{name}: the model has no relu, so this would be the gradient: use saliency. "
            f"Its layers: {', '.join(dict.fromkeys(kinds))}"
        )

    def visit(path: str, part: Layer, x: jax.Array, apply: Function) -> jax.Array:
        return relu(apply, x) if part.kind in RECTIFIERS else apply(x)

    x, f = asked(name, model, params, state, images, label, layer=layer, score=score, visit=visit)
    return gradient(f, x)
