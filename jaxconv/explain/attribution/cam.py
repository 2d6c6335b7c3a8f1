"""Grad-CAM, and the class activation map (CAM) that it generalizes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import TargetFn, resolve_target, select_scores
from jaxconv.explain.intermediates import check_images, check_layer, feature_maps, layer_names
from jaxconv.layers import Layer
from jaxconv.layers.traversal import get_subtree, intercept, named_layers


@named_errors
def grad_cam(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
) -> jax.Array:
    """Compute Grad-CAM: the feature maps A of a layer, weighted by their mean gradient and rectified.

    ``map[p] = max(Σ_k α_k · A_k[p], 0)`` with ``α_k = mean_p ∂ f / ∂ A_k[p]``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or floats.
        target: target class, one for all images or ``(N,)``; by default the predicted class.
        layer: layer name; by default the last layer with more than one position.
        target_fn: function that replaces the class: network output to one number per image.

    Returns:
        ``(N, h, w)``, nonnegative, at the resolution of the layer; :func:`upsample_map` resizes it to the image.

    Raises:
        InputError: if the layer has no spatial axes or is unknown, no layer has more than one position, the output
            has no classes and there is no ``target_fn``, a target is not a class index, or ``images`` is empty.

    Source: Selvaraju et al., 2016, https://arxiv.org/abs/1610.02391.

    >>> from jaxconv import Dense, flatten, serial
    >>> model = serial(lambda x: 2 * x, flatten, Dense(2))
    >>> params = {"dense1": {"kernel": jnp.array([[1., 0.], [3., 0.]]), "bias": jnp.zeros(2)}}
    >>> grad_cam(model, params, {}, jnp.array([[[[1.], [-2.]]]]), 0)                    # α = (1 + 3) / 2
    Array([[[4., 0.]]], dtype=float32)
    """
    x = check_images(images)
    if layer is not None:
        check_layer(model, layer)
    maps = feature_maps(model, params, state, x)
    logits = maps[layer_names(model)[-1]]
    spatial = [name for name, y in maps.items() if y.ndim == 4 and y.shape[1] * y.shape[2] > 1]
    if layer is None and not spatial:
        raise InputError(f"no layer has a feature map of more than one position, of {', '.join(maps)}: use saliency")
    layer_name = spatial[-1] if layer is None else layer
    features = maps[layer_name]
    if features.ndim != 4:
        raise InputError(
            f"the output {features.shape} of layer {layer_name} has no spatial axes; choose a layer with (N, h, w, c)"
            f"{': ' if spatial else ''}{', '.join(spatial)}"
        )
    select_scores(logits, target, target_fn)
    target = resolve_target(logits, target) if target_fn is None else None

    def score(features: jax.Array) -> jax.Array:
        visit = lambda path, child, x, apply: features if path == layer_name else apply(x)  # noqa: E731
        y = intercept(model, params, state, x, visit)
        return select_scores(y, target, target_fn).sum()

    alpha = jax.grad(score)(features).mean(axis=(1, 2))
    return jax.nn.relu(jnp.einsum("nhwk,nk->nhw", features, alpha, precision="highest"))


@named_errors
def class_activation_map(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    """Compute the class activation map (CAM): the contribution of each position to the logit of a class.

    ``map[p] = Σ_k w[k, class] · A_k[p]``, with A the feature maps before the global average pooling. The mean of the
    map is the logit without the bias.

    Args:
        model: a Layer that ends with ``…, global_avg_pool, Dense(num_classes)``.
        params, state: those of the model.
        images: ``(N, H, W, C)``, uint8 or floats.
        target: target class, one for all images or ``(N,)``; by default the predicted class.

    Returns:
        ``(N, h, w)`` at the resolution of the feature maps, signed.

    Raises:
        InputError: if the model ends otherwise, a target is not a class index, or ``images`` is empty.

    Source: Zhou et al., 2015, https://arxiv.org/abs/1512.04150.

    >>> from jaxconv import Conv, Dense, ops, serial
    >>> model = serial(Conv(3, 3), ops.global_avg_pool, Dense(2))
    >>> params, state = model.init(jax.random.key(0), (6, 6, 1))
    >>> x = jax.random.normal(jax.random.key(1), (1, 6, 6, 1))
    >>> cam, logits = class_activation_map(model, params, state, x, 1), model.apply(params, state, x)[0]
    >>> cam.shape, bool(abs(cam.mean() - logits[0, 1]) < 1e-5)
    ((1, 4, 4), True)
    """
    x = check_images(images)
    last_layers = list(named_layers(model).items())[-2:]
    if not _ends_with_mean_and_dense([child for _, child in last_layers]):
        kinds = ["nothing", *(child.kind for _, child in last_layers)][-2:]
        raise InputError(
            f"the model must end with global_avg_pool and one Dense, got {', '.join(kinds)}: use grad_cam instead"
        )
    pool, dense = (path for path, _ in last_layers)
    inputs: dict[str, jax.Array] = {}

    def record(path: str, child: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        inputs[path] = x
        return apply(x)

    logits = intercept(model, params, state, x, record)
    features = inputs[pool]
    if features.ndim != 4:
        raise InputError(f"the feature maps {features.shape} should be (N, h, w, c)")
    weights = get_subtree(params, dense)["kernel"][:, resolve_target(logits, target)]
    return jnp.einsum("nhwk,kn->nhw", features, weights, precision="highest")


def _ends_with_mean_and_dense(last_layers: list[Layer]) -> bool:
    if len(last_layers) < 2:
        return False
    pool, dense = last_layers
    return pool.facts.pools == "mean" and pool.window is None and dense.facts.kernel_use == "dense"
