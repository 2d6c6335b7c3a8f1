"""Attributions by name, and the conversion of their result to a heatmap: one number a pixel, not negative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.cam import class_activation_map, grad_cam
from jaxconv.explain.attribution.gradient_methods import (
    deconvnet,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from jaxconv.explain.attribution.perturbation import occlusion
from jaxconv.layers import Layer, as_layer
from jaxconv.shapes import IntOrInts, canonicalize_sizes

Method = Callable[..., jax.Array]  # (model, params, state, images, label=None) -> (N, H, W), not negative


def _enlarged(maps: jax.Array, images: Any) -> jax.Array:
    # Between places of a map of one sign bilinear weights make nothing of the other.
    return upsample_map(jax.nn.relu(maps), jnp.shape(images)[1:3])


def _occlusion(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return jax.nn.relu(occlusion(model, params, state, images, target).attributions)


def _saliency(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(saliency(model, params, state, images, target))


def _gradient_x_input(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(input_x_gradient(model, params, state, images, target))


def _smooth_grad(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(smoothgrad(model, params, state, images, target, key=jax.random.key(0)))


def _integrated_gradients(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(integrated_gradients(model, params, state, images, target).attribution)


def _guided_backprop(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(guided_backprop(model, params, state, images, target))


def _deconvnet(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(deconvnet(model, params, state, images, target))


def _grad_cam(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return _enlarged(grad_cam(model, params, state, images, target), images)


def _class_activation_map(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return _enlarged(class_activation_map(model, params, state, images, target), images)


ATTRIBUTION_METHODS: dict[str, Method] = {
    "occlusion": _occlusion,
    "saliency": _saliency,
    "input_x_gradient": _gradient_x_input,
    "smoothgrad": _smooth_grad,
    "integrated_gradients": _integrated_gradients,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "grad_cam": _grad_cam,
    "class_activation_map": _class_activation_map,
}


def applicable_methods(model: Layer, input_shape: tuple[int, int, int]) -> dict[str, Method]:
    """Those of :data:`ATTRIBUTION_METHODS` that can be asked of a model; nothing is computed.

    Args:
        model: a Layer.
        input_shape: of an image, ``(H, W, C)``.

    Raises:
        InputError: the model takes no such image, or has no classes, so that none can.

    >>> from jaxconv import models
    >>> [name for name in ATTRIBUTION_METHODS if name not in applicable_methods(models.mlp(), (8, 8, 1))]
    ['grad_cam', 'class_activation_map']
    """
    model = as_layer(model)
    params, state = jax.eval_shape(lambda key: model.init(key, input_shape), jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    found: dict[str, Method] = {}
    refused: list[InputError] = []
    for name, method in ATTRIBUTION_METHODS.items():
        try:
            jax.eval_shape(lambda *given, method=method: method(model, *given), params, state, one)
        except InputError as error:
            refused.append(error)
        else:
            found[name] = method
    if not found:
        raise refused[0]
    return found


@named_errors
def to_heatmap(attribution: Any) -> jax.Array:
    """One number a pixel of one a value: ``heat[n, p] = max_c |a[n, p, c]|``, as Simonyan et al. show theirs.

    Args:
        attribution: ``(N, H, W, C)``.

    Returns:
        ``(N, H, W)``, not negative.

    >>> to_heatmap(jnp.array([[[[1., -3.], [0., 2.]]]]))
    Array([[[3., 2.]]], dtype=float32)
    """
    attribution = jnp.asarray(attribution)
    if attribution.ndim != 4:
        raise InputError(f"an attribution {attribution.shape} should be (N, H, W, C), one number a value")
    return jnp.abs(attribution).max(axis=-1)


@named_errors
def upsample_map(coarse: Any, size: IntOrInts) -> jax.Array:
    """A map of few places, such as Grad-CAM's, at the image's size: bilinear.

    Args:
        coarse: ``(N, h, w)``.
        size: ``(H, W)``, or one number for both.

    Returns:
        ``(N, H, W)``.

    >>> upsample_map(jnp.array([[[0., 4.]]]), (1, 4))
    Array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    coarse = jnp.asarray(coarse)
    if coarse.ndim != 3:
        raise InputError(f"a map {coarse.shape} should be (N, h, w)")
    return jax.image.resize(coarse, (len(coarse), *canonicalize_sizes(size, 2, "size")), "bilinear")
