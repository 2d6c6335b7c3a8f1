"""Attributions from the gradient of the image: plain, times the input, averaged over noise or along a path.

Guided back-propagation and the deconvnet replace the rule of relu in the backward pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import Asked, TargetFn, target_function
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers


@named_errors
def saliency(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """The gradient of a class's logit by the image: ``a = ∂ f(x) / ∂ x``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes (then the gradient is by pixels from 0 to 1) or floats.
        target: the class, one for all or ``(N,)``; by default the likeliest.
        layer, target_fn: ask about something else than a class, such as a filter of a layer:
            ``target_fn=strongest(3)``.

    Returns:
        ``(N, H, W, C)``; of each image the gradient of its own score.

    Raises:
        InputError: an output without classes and no score; a label outside the classes; an unknown layer; no image.

    Source: Simonyan et al., 2013, https://arxiv.org/abs/1312.6034.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> saliency(serial(flatten, Dense(2)), params, {}, jnp.ones((1, 1, 2, 1)), 0).ravel()
    Array([1., 3.], dtype=float32)
    """
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    return gradient(f, x)


@named_errors
def input_x_gradient(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """What each pixel adds to a class's logit, were the network linear: ``a = x · ∂ f(x) / ∂ x``.

    Args, returns and errors are those of :func:`saliency`. Of a network of convolutions, relus and max pools without
    biases the sum is f(x).

    Source: Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> input_x_gradient(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0).ravel()
    Array([0.5, 1.5], dtype=float32)
    """
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    return x * gradient(f, x)


@named_errors
def smoothgrad(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    key: jax.Array,
    noise_scale: float = 0.15,
    num_samples: int = 32,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """The mean gradient of images with noise: ``a = mean_i ∂ f / ∂ x (x + σ·ε_i)``, ε normal.

    Args:
        model, params, state, images, target, layer, target_fn: as in :func:`saliency`. The likeliest class is that of
            the image without noise.
        key: of the noise.
        noise_scale: the standard deviation σ, as a share of each image's range, ``max x − min x``.
        num_samples: how many.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: noise below 0, samples below 1, or what saliency refuses.

    Source: Smilkov et al., 2017, https://arxiv.org/abs/1706.03825.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> smoothgrad(serial(flatten, Dense(2)), params, {}, x, 1, key=jax.random.key(0), num_samples=2).ravel()
    Array([2., 4.], dtype=float32)
    """
    checks.real("noise_scale", noise_scale, minimum=0)
    checks.at_least(1, num_samples=num_samples)
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    axes = tuple(range(1, x.ndim))
    deviation = noise_scale * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))

    def add(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(f, x + deviation * jax.random.normal(key, x.shape, x.dtype)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jax.random.split(key, num_samples))
    return total / num_samples


def gradient(f: Asked, x: jax.Array) -> jax.Array:
    """Of each image the gradient of its own number: no image has a part in another's."""
    return jax.grad(lambda x: f(x).sum())(x)


class IntegratedGradients(NamedTuple):
    """What :func:`integrated_gradients` found.

    Attributes:
        attribution: what each value of the image adds, ``(N, H, W, C)``.
        output_difference: what they should add up to, ``f(x) − f(baseline)``, ``(N,)``.
        convergence_delta: how far they do not, as a share of the difference, ``(N,)``; of a difference of 0, as it is.
    """

    attribution: jax.Array
    output_difference: jax.Array
    convergence_delta: jax.Array


@named_errors
def integrated_gradients(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    baseline: Any = 0.0,
    num_steps: int = 128,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> IntegratedGradients:
    """What each pixel adds to a class's logit on the way from a baseline b: the parts add up to ``f(x) − f(b)``.

    ``a = (x − b) · ∫₀¹ ∂ f / ∂ x (b + t·(x − b)) dt``, the integral as a mean at ``t = (k + ½) / steps``.

    Args:
        model, params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`. The likeliest
            class is that of the image.
        baseline: the image of nothing: a number, an image ``(H, W, C)``, or one for each.
        num_steps: how many points on the way. (The gap of 200 images of MNIST was below 0.8 % with 128, and
            below 2 % with 64.)

    Returns:
        An :class:`IntegratedGradients`, whose ``gap`` tells whether there were steps enough.

    Raises:
        InputError: a baseline of another shape, steps below 1, or what saliency refuses.

    Source: Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> found = integrated_gradients(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0)
    >>> found.attribution.ravel(), found.output_difference
    (Array([0.5, 1.5], dtype=float32), Array([2.], dtype=float32))
    """
    checks.at_least(1, num_steps=num_steps)
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    baseline = checks.as_array(baseline=baseline).astype(x.dtype)
    if baseline.shape not in ((), x.shape[1:], x.shape):
        raise InputError(
            f"baseline {baseline.shape} should be a number, one image {x.shape[1:]}, or one for each, {x.shape}"
        )
    # Behind a barrier, or XLA would compute the network of a constant baseline while it compiles, slowly.
    baseline = jax.lax.optimization_barrier(jnp.broadcast_to(baseline, x.shape))
    way = x - baseline

    def add(total: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(f, baseline + t * way), None

    middles = (jnp.arange(num_steps, dtype=x.dtype) + 0.5) / num_steps
    total, _ = jax.lax.scan(add, jnp.zeros_like(x), middles)
    attribution = way * total / num_steps
    difference = f(x) - f(baseline)
    missed = jnp.abs(attribution.reshape(len(x), -1).sum(axis=1) - difference)
    return IntegratedGradients(attribution, difference, missed / jnp.where(difference == 0, 1, jnp.abs(difference)))


Function = Callable[[jax.Array], jax.Array]


@named_errors
def guided_backprop(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """The gradient, but through a relu only what is positive goes back, and only where its input was.

    At every relu ``dx = dy · [dy > 0] · [x > 0]``; all else, the max pools too, passes its gradient on. What remains
    are the pixels that make the answer larger by making every feature on the way larger.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: a model without a relu, of which this would be the gradient; or what saliency refuses.

    Source: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806, section 3.4. Lecture row 001-13.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: -x.sum(axis=-1))
    >>> guided_backprop(model, {}, {}, jnp.array([[1., 2.]]), target_fn=lambda y: y)
    Array([[0., 0.]], dtype=float32)
    """
    back = _by_rule(lambda function, x, dy: jax.vjp(function, x)[1](jnp.maximum(dy, 0))[0])
    return _rectified(back, model, params, state, images, target, layer, target_fn)


@named_errors
def deconvnet(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """What a deconvolutional network projects back to the pixels: relu rectifies on the way back as on the way there.

    At every relu ``dx = dy · [dy > 0]``, wherever its input was; max pools send back to the pixel that was the
    largest (the "switches") and convolutions with the transposed kernel, as their gradients do. Of one filter,
    ``layer="conv2", target_fn=strongest(3)`` projects its strongest answer, up to a factor: that answer.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: a model without a relu, of which this would be the gradient; or what saliency refuses.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, section 2.1. Lecture row 002-05.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: x.sum(axis=-1))
    >>> x = jnp.array([[1., 2.]])                                                   # relu sees -3 and 1
    >>> [f(model, {}, {}, x, target_fn=lambda y: y).tolist() for f in (deconvnet, guided_backprop)]
    [[[0.0, -1.0]], [[-1.0, 1.0]]]
    """
    back = _by_rule(lambda function, x, dy: jnp.maximum(dy, 0))
    return _rectified(back, model, params, state, images, target, layer, target_fn)


def _by_rule(rule: Callable[[Function, jax.Array, jax.Array], jax.Array]) -> Callable[[Function, jax.Array], jax.Array]:
    """``function(x)`` with ``rule(function, x, dy)`` in place of its gradient."""

    def call(function: Function, x: jax.Array) -> jax.Array:
        return function(x)

    replaced = jax.custom_vjp(call, nondiff_argnums=(0,))
    replaced.defvjp(lambda function, x: (function(x), x), lambda function, x, dy: (rule(function, x, dy),))
    return replaced


def _rectified(
    relu: Callable[[Function, jax.Array], jax.Array],
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any,
    layer: str | None,
    target_fn: TargetFn | None,
) -> jax.Array:
    layers = named_layers(model).values()
    if not any(part.facts.rectifies for part in layers):
        raise InputError(
            f"the model has no relu, so this would be the gradient: use saliency. "
            f"Its layers: {', '.join(dict.fromkeys(part.kind for part in layers))}"
        )

    def visit(path: str, part: Layer, x: jax.Array, apply: Function) -> jax.Array:
        return relu(apply, x) if part.facts.rectifies else apply(x)

    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn, visit=visit)
    return gradient(f, x)
