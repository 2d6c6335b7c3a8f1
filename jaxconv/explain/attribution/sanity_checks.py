"""Sanity check of attributions: they must depend on the trained parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import resolve_target, select_scores
from jaxconv.explain.intermediates import check_images
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import get_subtree, named_layers

Attribute = Callable[[Layer, Any, Any, Any, Any], Any]  # (model, params, state, images, target) -> (N, …)


class RandomizedLayer(NamedTuple):
    """One step of :func:`model_randomization_test`: the first randomized layer, and the correlation that remains."""

    layer: str
    correlation: float


@named_errors
def model_randomization_test(
    attribute: Attribute,
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    key: jax.Array,
) -> list[RandomizedLayer]:
    """Correlate an attribution with itself while the layers are randomized one after another, the last layer first.

    Each layer in turn gets new params and state from its ``init``; the layers after it stay randomized. The correlation
    is Spearman's ρ(|a|, |a'|) between the attributions of the trained and of the randomized network, averaged over the
    images; it is 0 if one of them is constant.

    Args:
        attribute: ``(model, params, state, images, target) -> (N, …)``, such as :func:`jaxconv.explain.saliency` or one
            of :data:`ATTRIBUTION_METHODS`. (``jax.jit(attribute, static_argnums=0)`` compiles it once.)
        model, params, state: the trained network.
        images: ``(N, H, W, C)``.
        target: target class, one for all images or ``(N,)``; by default the class that the trained network predicts.
        key: random key of the new params.

    Returns:
        ``(layer, correlation)`` of every layer with params, the last layer first.

    Raises:
        InputError: if the model has no params or no classes, a target is not a class index, or ``images`` is empty.

    Source: Adebayo et al., 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292.

    >>> from jaxconv import Conv, Dense, flatten, relu, serial
    >>> model = serial(Conv(2, 3), relu, flatten, Dense(2))
    >>> params, state = model.init(jax.random.key(0), (5, 5, 1))
    >>> x = jax.random.normal(jax.random.key(1), (3, 5, 5, 1))
    >>> independent_of_params = lambda model, params, state, images, target: images
    >>> steps = model_randomization_test(independent_of_params, model, params, state, x, key=jax.random.key(2))
    >>> [(layer, round(correlation, 3)) for layer, correlation in steps]
    [('dense1', 1.0), ('conv1', 1.0)]
    """
    x = check_images(images)
    model = as_layer(model)
    logits = model.apply(params, state, x)[0]
    select_scores(logits, target)
    target = resolve_target(logits, target)
    new_params, new_state = model.init(key, x.shape[1:])
    param_paths = [
        path for path, child in named_layers(model).items() if not child.children and get_subtree(new_params, path)
    ]
    if not param_paths:
        raise InputError("the model has no layer with params to randomize")
    original = np.asarray(attribute(model, params, state, images, target))
    results = []
    for path in reversed(param_paths):
        params, state = _replace_subtree(params, new_params, path), _replace_subtree(state, new_state, path)
        randomized = np.asarray(attribute(model, params, state, images, target))
        results.append(RandomizedLayer(path, _rank_correlation(original, randomized)))
    return results


def _replace_subtree(tree: Any, replacement: Any, path: str) -> Any:
    """Return the tree with the subtree at a path taken from another tree."""
    name, _, rest = path.partition("/")
    if name not in replacement:
        return tree
    return tree | {name: _replace_subtree(tree[name], replacement[name], rest) if rest else replacement[name]}


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    correlations = []
    for a_n, b_n in zip(np.abs(a).reshape(len(a), -1), np.abs(b).reshape(len(b), -1), strict=True):
        ranks = [rankdata(values) - (values.size + 1) / 2 for values in (a_n, b_n)]
        norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        correlations.append(float((ranks[0] * ranks[1]).sum() / norm) if norm else 0.0)
    return float(np.mean(correlations))
