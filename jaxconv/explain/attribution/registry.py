"""Attribution methods by name, with results converted to heatmaps: one nonnegative number per pixel."""

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

Method = Callable[..., jax.Array]  # (model, params, state, images, target=None) -> (N, H, W), nonnegative


def _to_image_size(maps: jax.Array, images: Any) -> jax.Array:
    # Rectify before the bilinear upsampling, whose nonnegative weights then keep the sign.
    return upsample_map(jax.nn.relu(maps), jnp.shape(images)[1:3])


def _occlusion(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return jax.nn.relu(occlusion(model, params, state, images, target).attributions)


def _saliency(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(saliency(model, params, state, images, target))


def _input_x_gradient(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(input_x_gradient(model, params, state, images, target))


def _smoothgrad(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(smoothgrad(model, params, state, images, target, key=jax.random.key(0)))


def _integrated_gradients(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(integrated_gradients(model, params, state, images, target).attribution)


def _guided_backprop(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(guided_backprop(model, params, state, images, target))


def _deconvnet(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return to_heatmap(deconvnet(model, params, state, images, target))


def _grad_cam(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return _to_image_size(grad_cam(model, params, state, images, target), images)


def _class_activation_map(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    return _to_image_size(class_activation_map(model, params, state, images, target), images)


ATTRIBUTION_METHODS: dict[str, Method] = {
    "occlusion": _occlusion,
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
    "smoothgrad": _smoothgrad,
    "integrated_gradients": _integrated_gradients,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "grad_cam": _grad_cam,
    "class_activation_map": _class_activation_map,
}


def applicable_methods(model: Layer, input_shape: tuple[int, int, int]) -> dict[str, Method]:
    """Return the entries of :data:`ATTRIBUTION_METHODS` that support a model, found by tracing only.

    Args:
        model: a Layer.
        input_shape: shape of one image, ``(H, W, C)``.

    Raises:
        InputError: if no method applies, because the model cannot take such an image or has no classes.

    >>> from jaxconv import models
    >>> [name for name in ATTRIBUTION_METHODS if name not in applicable_methods(models.mlp(), (8, 8, 1))]
    ['grad_cam', 'class_activation_map']
    """
    model = as_layer(model)
    params, state = jax.eval_shape(lambda key: model.init(key, input_shape), jax.random.key(0))
    image_spec = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    applicable: dict[str, Method] = {}
    errors: list[InputError] = []
    for name, method in ATTRIBUTION_METHODS.items():
        try:
            jax.eval_shape(lambda *args, method=method: method(model, *args), params, state, image_spec)
        except InputError as error:
            errors.append(error)
        else:
            applicable[name] = method
    if not applicable:
        raise errors[0]
    return applicable


@named_errors
def to_heatmap(attribution: Any) -> jax.Array:
    """Reduce an attribution to one number per pixel: ``heat[n, p] = max_c |a[n, p, c]|``, as Simonyan et al. do.

    Args:
        attribution: ``(N, H, W, C)``.

    Returns:
        ``(N, H, W)``, nonnegative.

    >>> to_heatmap(jnp.array([[[[1., -3.], [0., 2.]]]]))
    Array([[[3., 2.]]], dtype=float32)
    """
    attribution = jnp.asarray(attribution)
    if attribution.ndim != 4:
        raise InputError(f"attribution must be (N, H, W, C), got {attribution.shape}")
    return jnp.abs(attribution).max(axis=-1)


@named_errors
def upsample_map(coarse: Any, size: IntOrInts) -> jax.Array:
    """Resize a low-resolution map, such as Grad-CAM's, to the image size with bilinear interpolation.

    Args:
        coarse: ``(N, h, w)``.
        size: ``(H, W)``, or one int for both.

    Returns:
        ``(N, H, W)``.

    >>> upsample_map(jnp.array([[[0., 4.]]]), (1, 4))
    Array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    coarse = jnp.asarray(coarse)
    if coarse.ndim != 3:
        raise InputError(f"coarse must be a map (N, h, w), got {coarse.shape}")
    return jax.image.resize(coarse, (len(coarse), *canonicalize_sizes(size, 2, "size")), "bilinear")
