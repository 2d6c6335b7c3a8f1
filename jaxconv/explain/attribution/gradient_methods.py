"""Gradient attributions: plain, times the input, averaged over noise or along a path.

Guided backpropagation and the deconvnet replace the gradient of relu in the backward pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import ImageFn, TargetFn, target_function
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
    """Compute the gradient of the class logit with respect to the image: ``a = ∂ f(x) / ∂ x``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, floats or uint8 (scaled to [0, 1] first).
        target: target class, one for all images or ``(N,)``; by default the predicted class.
        layer, target_fn: function of a layer's output that replaces the class logit; such as
            ``layer="conv2", target_fn=max_activation(3)`` for a filter.

    Returns:
        ``(N, H, W, C)``, the gradient of each image's target with respect to that image.

    Raises:
        InputError: if the output has no classes and there is no ``target_fn``, a target is not a class index, the
            layer is unknown, or ``images`` is empty.

    Source: Simonyan et al., 2013, https://arxiv.org/abs/1312.6034.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> saliency(serial(flatten, Dense(2)), params, {}, jnp.ones((1, 1, 2, 1)), 0).ravel()
    Array([1., 3.], dtype=float32)
    """
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    return _gradient(f, x)


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
    """Compute gradient times input, each pixel's first-order contribution to the logit: ``a = x · ∂ f(x) / ∂ x``.

    Arguments, result and errors are those of :func:`saliency`. For a network of convolutions, relus and max pools
    without biases the attributions sum to f(x).

    Source: Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> input_x_gradient(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0).ravel()
    Array([0.5, 1.5], dtype=float32)
    """
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    return x * _gradient(f, x)


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
    """Average the gradient over noisy copies of the image: ``a = mean_i ∂ f / ∂ x (x + σ·ε_i)``, ε normal.

    Args:
        model, params, state, images, target, layer, target_fn: as in :func:`saliency`. The predicted class is that of
            the image without noise.
        key: random key of the noise.
        noise_scale: standard deviation σ as a fraction of each image's range, ``max x − min x``.
        num_samples: number of noisy copies.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: if ``noise_scale`` is negative or ``num_samples`` is less than 1; or as in :func:`saliency`.

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

    def add(gradient_sum: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return gradient_sum + _gradient(f, x + deviation * jax.random.normal(key, x.shape, x.dtype)), None

    gradient_sum, _ = jax.lax.scan(add, jnp.zeros_like(x), jax.random.split(key, num_samples))
    return gradient_sum / num_samples


def _gradient(f: ImageFn, x: jax.Array) -> jax.Array:
    """Return the gradient of each image's number with respect to that image; the images are independent."""
    return jax.grad(lambda x: f(x).sum())(x)


class IntegratedGradients(NamedTuple):
    """Result of :func:`integrated_gradients`.

    Attributes:
        attribution: contribution of each value of the image, ``(N, H, W, C)``.
        output_difference: ``f(x) − f(baseline)``, the exact sum of the contributions, ``(N,)``.
        convergence_delta: ``|Σ attribution − output_difference|`` as a fraction of ``|output_difference|``, ``(N,)``;
            absolute where the difference is 0.
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
    """Integrate the gradient along the straight path from a baseline b; the attributions sum to ``f(x) − f(b)``.

    ``a = (x − b) · ∫₀¹ ∂ f / ∂ x (b + t·(x − b)) dt``, the integral as a mean at ``t = (k + ½) / num_steps``.

    Args:
        model, params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`. The predicted
            class is that of the image, not of the baseline.
        baseline: image without information: a number, one image ``(H, W, C)``, or one per image.
        num_steps: number of points on the path. (The convergence delta of 200 MNIST images was below 0.8 % with 128
            and below 2 % with 64.)

    Returns:
        An :class:`IntegratedGradients`; a large ``convergence_delta`` means that ``num_steps`` is too small.

    Raises:
        InputError: if the baseline has another shape or ``num_steps`` is less than 1; or as in :func:`saliency`.

    Source: Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> result = integrated_gradients(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0)
    >>> result.attribution.ravel(), result.output_difference
    (Array([0.5, 1.5], dtype=float32), Array([2.], dtype=float32))
    """
    checks.at_least(1, num_steps=num_steps)
    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn)
    baseline = checks.as_array(baseline=baseline).astype(x.dtype)
    if baseline.shape not in ((), x.shape[1:], x.shape):
        raise InputError(
            f"baseline must be a number, one image {x.shape[1:]}, or one per image {x.shape}, got {baseline.shape}"
        )
    # Without the barrier, XLA constant-folds the network for a constant baseline, which slows down compilation.
    baseline = jax.lax.optimization_barrier(jnp.broadcast_to(baseline, x.shape))
    path = x - baseline

    def add(gradient_sum: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return gradient_sum + _gradient(f, baseline + t * path), None

    midpoints = (jnp.arange(num_steps, dtype=x.dtype) + 0.5) / num_steps
    gradient_sum, _ = jax.lax.scan(add, jnp.zeros_like(x), midpoints)
    attribution = path * gradient_sum / num_steps
    difference = f(x) - f(baseline)
    error = jnp.abs(attribution.reshape(len(x), -1).sum(axis=1) - difference)
    return IntegratedGradients(attribution, difference, error / jnp.where(difference == 0, 1, jnp.abs(difference)))


ArrayFn = Callable[[jax.Array], jax.Array]


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
    """Compute guided backpropagation: the gradient, with only positive gradients passed back through each relu.

    At every relu ``dx = dy · [dy > 0] · [x > 0]``; all other layers have their usual gradient. The result shows the
    pixels that increase the target by increasing every feature along the path.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: if the model has no relu, so that the result would be the gradient; or as in :func:`saliency`.

    Source: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806, section 3.4. Lecture row 001-13.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: -x.sum(axis=-1))
    >>> guided_backprop(model, {}, {}, jnp.array([[1., 2.]]), target_fn=lambda y: y)
    Array([[0., 0.]], dtype=float32)
    """
    guided_relu = _with_vjp_rule(lambda function, x, dy: jax.vjp(function, x)[1](jnp.maximum(dy, 0))[0])
    return _with_relu_rule(guided_relu, model, params, state, images, target, layer, target_fn)


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
    """Project the target back to the pixels with a deconvolutional network (deconvnet).

    At every relu ``dx = dy · [dy > 0]``, independent of the input. Max pools route back to the maximum (the
    "switches"), and convolutions apply the transposed kernel, as their gradients do. With
    ``layer="conv2", target_fn=max_activation(3)``, the maximum activation of filter 3 is projected, divided by its
    value.

    Args:
        model: a Layer with relu or relu6 among its layers.
        params, state, images, target, layer, target_fn: as in :func:`jaxconv.explain.saliency`.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: if the model has no relu, so that the result would be the gradient; or as in :func:`saliency`.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, section 2.1. Lecture row 002-05.

    >>> from jaxconv import relu, serial
    >>> model = serial(lambda x: x @ jnp.array([[1., -1.], [-2., 1.]]), relu, lambda x: x.sum(axis=-1))
    >>> x = jnp.array([[1., 2.]])                                                   # inputs of relu: -3 and 1
    >>> [f(model, {}, {}, x, target_fn=lambda y: y).tolist() for f in (deconvnet, guided_backprop)]
    [[[0.0, -1.0]], [[-1.0, 1.0]]]
    """
    deconv_relu = _with_vjp_rule(lambda function, x, dy: jnp.maximum(dy, 0))
    return _with_relu_rule(deconv_relu, model, params, state, images, target, layer, target_fn)


def _with_vjp_rule(
    rule: Callable[[ArrayFn, jax.Array, jax.Array], jax.Array],
) -> Callable[[ArrayFn, jax.Array], jax.Array]:
    """Return ``function(x)`` with ``rule(function, x, dy)`` as its vector-Jacobian product."""

    def apply(function: ArrayFn, x: jax.Array) -> jax.Array:
        return function(x)

    replaced = jax.custom_vjp(apply, nondiff_argnums=(0,))
    replaced.defvjp(lambda function, x: (function(x), x), lambda function, x, dy: (rule(function, x, dy),))
    return replaced


def _with_relu_rule(
    relu: Callable[[ArrayFn, jax.Array], jax.Array],
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any,
    layer: str | None,
    target_fn: TargetFn | None,
) -> jax.Array:
    layers = named_layers(model).values()
    if not any(child.facts.rectifies for child in layers):
        raise InputError(
            f"the model has no relu, so the result would equal the gradient: use saliency. "
            f"Its layers: {', '.join(dict.fromkeys(child.kind for child in layers))}"
        )

    def visit(path: str, child: Layer, x: jax.Array, apply: ArrayFn) -> jax.Array:
        return relu(apply, x) if child.facts.rectifies else apply(x)

    x, f = target_function(model, params, state, images, target, layer=layer, target_fn=target_fn, visit=visit)
    return _gradient(f, x)
