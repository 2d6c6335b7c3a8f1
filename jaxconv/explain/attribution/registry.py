"""Attributions by name, and the conversion of their result to a heatmap: one number a pixel, not negative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.cam import class_activation_map, grad_cam
from jaxconv.explain.attribution.gradient_methods import (
    deconvnet,
    gradient_x_input,
    guided_backprop,
    integrated_gradients,
    saliency,
    smooth_grad,
)
from jaxconv.explain.attribution.perturbation import occlusion
from jaxconv.layers import Layer, as_layer
from jaxconv.shapes import Sizes, per_dimension

Method = Callable[..., jax.Array]  # (model, params, state, images, label=None) -> (N, H, W), not negative


def _enlarged(maps: jax.Array, images: Any) -> jax.Array:
    # Between places of a map of one sign bilinear weights make nothing of the other.
    return enlarge_map(jax.nn.relu(maps), jnp.shape(images)[1:3])


def _occlusion(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return jax.nn.relu(occlusion(model, params, state, images, label).drop)


def _saliency(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(saliency(model, params, state, images, label))


def _gradient_x_input(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(gradient_x_input(model, params, state, images, label))


def _smooth_grad(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(smooth_grad(model, params, state, images, label, key=jax.random.key(0)))


def _integrated_gradients(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(integrated_gradients(model, params, state, images, label).attribution)


def _guided_backprop(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(guided_backprop(model, params, state, images, label))


def _deconvnet(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return to_heat(deconvnet(model, params, state, images, label))


def _grad_cam(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return _enlarged(grad_cam(model, params, state, images, label), images)


def _class_activation_map(model: Layer, params: Any, state: Any, images: Any, label: Any = None) -> jax.Array:
    return _enlarged(class_activation_map(model, params, state, images, label), images)


METHODS: dict[str, Method] = {
    "occlusion": _occlusion,
    "saliency": _saliency,
    "gradient_x_input": _gradient_x_input,
    "smooth_grad": _smooth_grad,
    "integrated_gradients": _integrated_gradients,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "grad_cam": _grad_cam,
    "class_activation_map": _class_activation_map,
}


def methods_of(model: Layer, in_shape: tuple[int, int, int]) -> dict[str, Method]:
    """Those of :data:`METHODS` that can be asked of a model; nothing is computed.

    Args:
        model: a Layer.
        in_shape: of an image, ``(H, W, C)``.

    Raises:
        InputError: the model takes no such image, or has no classes, so that none can.

    >>> from jaxconv import models
    >>> [name for name in METHODS if name not in methods_of(models.mlp(), (8, 8, 1))]
    ['grad_cam', 'class_activation_map']
    """
    model = as_layer(model)
    params, state = jax.eval_shape(lambda key: model.init(key, in_shape), jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *in_shape), jnp.float32)
    found: dict[str, Method] = {}
    refused: list[InputError] = []
    for name, method in METHODS.items():
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
def to_heat(attribution: Any) -> jax.Array:
    """One number a pixel of one a value: ``heat[n, p] = max_c |a[n, p, c]|``, as Simonyan et al. show theirs.

    Args:
        attribution: ``(N, H, W, C)``.

    Returns:
        ``(N, H, W)``, not negative.

    >>> to_heat(jnp.array([[[[1., -3.], [0., 2.]]]]))
    Array([[[3., 2.]]], dtype=float32)
    """
    attribution = jnp.asarray(attribution)
    if attribution.ndim != 4:
        raise InputError(f"an attribution {attribution.shape} should be (N, H, W, C), one number a value")
    return jnp.abs(attribution).max(axis=-1)


@named_errors
def enlarge_map(coarse: Any, size: Sizes) -> jax.Array:
    """A map of few places, such as Grad-CAM's, at the image's size: bilinear.

    Args:
        coarse: ``(N, h, w)``.
        size: ``(H, W)``, or one number for both.

    Returns:
        ``(N, H, W)``.

    >>> enlarge_map(jnp.array([[[0., 4.]]]), (1, 4))
    Array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    coarse = jnp.asarray(coarse)
    if coarse.ndim != 3:
        raise InputError(f"a map {coarse.shape} should be (N, h, w)")
    return jax.image.resize(coarse, (len(coarse), *per_dimension(size, 2, "size")), "bilinear")
