"""Does an attribution depend on what the network learned? One that does not, explains nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import resolve_target, select_scores
from jaxconv.explain.intermediates import check_images
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import get_subtree, named_layers

Attribute = Callable[[Layer, Any, Any, Any, Any], Any]  # (model, params, state, images, label) -> (N, …)


class RandomizedLayer(NamedTuple):
    """One step of :func:`model_randomization_test`: the layer from which on all are new, and what is left."""

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
    """How much an attribution still resembles itself when the network forgets, layer after layer, from the last one.

    A layer forgets by being given new params and state from its ``init``; those behind it have forgotten already. The
    resemblance is Spearman's correlation of the absolute values with those of the trained network, ``ρ(|a|, |a'|)``,
    the mean over the images; where one of the two is the same everywhere it is 0.

    Args:
        attribute: ``(model, params, state, images, label) -> (N, …)``, such as :func:`jaxconv.explain.saliency`, or one
            of :data:`ATTRIBUTION_METHODS`. (``jax.jit(attribute, static_argnums=0)`` compiles it once for all.)
        model, params, state: the trained network.
        images: ``(N, H, W, C)``.
        target: the class that is asked about all the time; by default the likeliest of the trained network.
        key: of the new params.

    Returns:
        ``(layer, correlation)`` of every layer that has params, the last one first.

    Raises:
        InputError: a model without params; an output without classes; a label outside the classes; no image.

    Source: Adebayo et al., 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292.

    >>> from jaxconv import Conv, Dense, flatten, relu, serial
    >>> model = serial(Conv(2, 3), relu, flatten, Dense(2))
    >>> params, state = model.init(jax.random.key(0), (5, 5, 1))
    >>> x = jax.random.normal(jax.random.key(1), (3, 5, 5, 1))
    >>> asks_no_network = lambda model, params, state, images, label: images
    >>> found = model_randomization_test(asks_no_network, model, params, state, x, key=jax.random.key(2))
    >>> [(layer, round(correlation, 3)) for layer, correlation in found]
    [('dense1', 1.0), ('conv1', 1.0)]
    """
    x = check_images(images)
    model = as_layer(model)
    logits = model.apply(params, state, x)[0]
    select_scores(logits, target)
    target = resolve_target(logits, target)
    new_params, new_state = model.init(key, x.shape[1:])
    learned = [
        path for path, part in named_layers(model).items() if not part.children and get_subtree(new_params, path)
    ]
    if not learned:
        raise InputError("no layer of the model has params that could be made new")
    original = np.asarray(attribute(model, params, state, images, target))
    steps = []
    for path in reversed(learned):
        params, state = _replaced(params, new_params, path), _replaced(state, new_state, path)
        changed = np.asarray(attribute(model, params, state, images, target))
        steps.append(RandomizedLayer(path, _resemblance(original, changed)))
    return steps


def _replaced(tree: Any, new: Any, path: str) -> Any:
    """A tree with the part at a path taken from another."""
    name, _, rest = path.partition("/")
    if name not in new:
        return tree
    return tree | {name: _replaced(tree[name], new[name], rest) if rest else new[name]}


def _resemblance(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    rhos = []
    for one, other in zip(np.abs(a).reshape(len(a), -1), np.abs(b).reshape(len(b), -1), strict=True):
        ranks = [rankdata(values) - (values.size + 1) / 2 for values in (one, other)]
        size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        rhos.append(float((ranks[0] * ranks[1]).sum() / size) if size else 0.0)
    return float(np.mean(rhos))
