"""Which places of a layer speak for a class: Grad-CAM, and the class activation map that it generalises."""

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
    """The places of a layer that speak for a class: its feature maps A, weighted by how much the logit wants of each.

    ``map[p] = max(Σ_k α_k · A_k[p], 0)`` with ``α_k = mean_p ∂ f / ∂ A_k[p]``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats.
        target: the class, one for all or ``(N,)``; by default the likeliest.
        layer: whose feature maps; by default the last one that has more than one place.
        target_fn: ask about something else of the network's output than a class.

    Returns:
        ``(N, h, w)``, not negative, at the layer's resolution: :func:`upsample_map` brings it to the image's.

    Raises:
        InputError: a layer without places, or a model without such a layer; an output without classes and no score;
            a label outside the classes; an unknown layer; no image.

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
        raise InputError(f"no layer makes more than one place, of {', '.join(maps)}: use saliency")
    looked_at = spatial[-1] if layer is None else layer
    features = maps[looked_at]
    if features.ndim != 4:
        raise InputError(
            f"layer {looked_at} makes {features.shape}, which has no places; give one that makes "
            f"(N, h, w, c){': ' if spatial else ''}{', '.join(spatial)}"
        )
    select_scores(logits, target, target_fn)
    target = resolve_target(logits, target) if target_fn is None else None

    def of_features(features: jax.Array) -> jax.Array:
        y = intercept(model, params, state, x, lambda path, part, x, apply: features if path == looked_at else apply(x))
        return select_scores(y, target, target_fn).sum()

    alpha = jax.grad(of_features)(features).mean(axis=(1, 2))
    return jax.nn.relu(jnp.einsum("nhwk,nk->nhw", features, alpha, precision="highest"))


@named_errors
def class_activation_map(model: Layer, params: Any, state: Any, images: Any, target: Any = None) -> jax.Array:
    """How much each place adds to a class's logit, where the network ends with a global mean and one dense layer.

    ``map[p] = Σ_k w[k, class] · A_k[p]``, with A the feature maps before the mean; the mean of the map is the logit,
    but for the bias.

    Args:
        model: a Layer that ends in ``…, global_avg_pool, Dense(classes)``.
        params, state: its own.
        images: ``(N, H, W, C)``, bytes or floats.
        target: the class, one for all or ``(N,)``; by default the likeliest.

    Returns:
        ``(N, h, w)`` at the resolution of the feature maps, of both signs.

    Raises:
        InputError: a model that ends otherwise; a label outside the classes; no image.

    Source: Zhou et al., 2015, https://arxiv.org/abs/1512.04150.

    >>> from jaxconv import Conv, Dense, ops, serial
    >>> model = serial(Conv(3, 3), ops.global_avg_pool, Dense(2))
    >>> params, state = model.init(jax.random.key(0), (6, 6, 1))
    >>> x = jax.random.normal(jax.random.key(1), (1, 6, 6, 1))
    >>> places, logits = class_activation_map(model, params, state, x, 1), model.apply(params, state, x)[0]
    >>> places.shape, bool(abs(places.mean() - logits[0, 1]) < 1e-5)
    ((1, 4, 4), True)
    """
    x = check_images(images)
    ends = list(named_layers(model).items())[-2:]
    if not _are_mean_and_dense([part for _, part in ends]):
        kinds = ["nothing", *(part.kind for _, part in ends)][-2:]
        raise InputError(
            f"the model ends with {', '.join(kinds)}; it needs global_avg_pool and then one "
            "Dense, which says what each feature map is worth: use grad_cam"
        )
    mean, dense = (path for path, _ in ends)
    found: dict[str, jax.Array] = {}

    def keep(path: str, part: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        found[path] = x
        return apply(x)

    logits = intercept(model, params, state, x, keep)
    features = found[mean]
    if features.ndim != 4:
        raise InputError(f"the feature maps {features.shape} should be (N, h, w, c)")
    weights = get_subtree(params, dense)["kernel"][:, resolve_target(logits, target)]
    return jnp.einsum("nhwk,kn->nhw", features, weights, precision="highest")


def _are_mean_and_dense(ends: list[Layer]) -> bool:
    if len(ends) < 2:
        return False
    mean, dense = ends
    return mean.facts.pools == "mean" and mean.window is None and dense.facts.kernel_use == "dense"
