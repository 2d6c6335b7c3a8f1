"""Training of some parameters: which are frozen, an optimizer and a model that leave these as they are."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxconv.errors import InputError
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import get_subtree, map_layers
from jaxconv.train.trees import path_text, paths

Trainable = Callable[[str], bool] | Any  # of a path such as "conv1/kernel"; or a tree of bools like params


def trainable_mask(params: Any, trainable: Trainable | None) -> Any:
    """Return a tree of bools like the parameters: True for those that are trained.

    Args:
        params: the parameters, or their shapes.
        trainable: a function ``path -> bool``, such as ``lambda path: path.startswith("dense2")``; a tree of bools
            like ``params``; or None for all.

    Raises:
        InputError: if a tree has other paths than ``params`` or leaves that are no bools, or nothing is trained.

    >>> trainable_mask({"conv1": {"bias": 0, "kernel": 0}, "dense1": {"bias": 0}}, lambda path: "kernel" in path)
    {'conv1': {'bias': False, 'kernel': True}, 'dense1': {'bias': False}}
    """
    if trainable is None:
        return jax.tree.map(lambda _: True, params)
    names = list(paths(params))
    if callable(trainable):
        mask = jax.tree_util.tree_map_with_path(lambda path, _: bool(trainable(path_text(path))), params)
    else:
        mask, got = trainable, paths(trainable)
        if different := sorted(got.keys() ^ set(names)):
            raise InputError(f"trainable must have the paths of params; it differs in {', '.join(different)}")
        if wrong := [name for name, leaf in got.items() if not isinstance(leaf, bool)]:
            raise InputError(f"trainable must be a tree of bools, got {got[wrong[0]]!r} at {wrong[0]}")
    if not any(jax.tree.leaves(mask)):
        raise InputError(f"trainable selects no parameter of {', '.join(names)}")
    return mask


def freeze_untrained(optimizer: optax.GradientTransformation, trainable: Trainable) -> optax.GradientTransformation:
    """Return the optimizer for the trained parameters only; it keeps no state for the others."""
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda trains: "train" if trains else "freeze", trainable_mask(params, trainable))

    groups = {"train": optimizer, "freeze": optax.set_to_zero()}
    both = optax.partition(groups, labels, mask_compatible_extra_args=True)

    def update(grads: Any, state: Any, params: Any = None, **given: Any) -> tuple[Any, Any]:
        if "value_fn" in given:  # the optimizer calls it with the trained parameters alone
            value_fn = given["value_fn"]
            given["value_fn"] = lambda trained: value_fn(_completed(trained, params))
        return both.update(grads, state, params, **given)

    return optax.GradientTransformationExtraArgs(both.init, update)


def freeze_model(model: Layer, trainable: Trainable) -> Layer:
    """Return the model with frozen parameters that have no gradient, and frozen layers that keep their state.

    A layer with state, such as ``BatchNorm``, is frozen if all its parameters and state are: it then works as in
    use, ``train=False``. A function ``trainable`` is asked for the paths of the state as well; with a tree, a layer is
    frozen if it has parameters and none is trained.
    """
    model = as_layer(model)

    def apply(params: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
        mask = trainable_mask(params, trainable)
        stopped = jax.tree.map(lambda p, trains: p if trains else jax.lax.stop_gradient(p), params, mask)
        frozen = frozen_layers(model, params, state, trainable)
        use = map_layers(model, lambda path, layer: _in_use(layer) if path in frozen else layer)
        return use.apply(stopped, state, x, **options)

    return model._replace(apply=apply)


def frozen_layers(model: Layer, params: Any, state: Any, trainable: Trainable) -> list[str]:
    """Return the paths of the layers with state that are frozen."""
    mask, frozen = trainable_mask(params, trainable), []

    def visit(path: str, layer: Layer) -> Layer:
        own = get_subtree(state, path) if path else state
        trains = list(paths(get_subtree(mask, path) if path else mask).values())
        if callable(trainable):
            trains += [bool(trainable(f"{path}/{name}".strip("/"))) for name in paths(own)]
        if jax.tree.leaves(own) and trains and not any(trains):
            frozen.append(path)
        return layer

    map_layers(model, visit)
    return frozen


def mask_sha256(model: Layer, params: Any, state: Any, trainable: Trainable | None) -> str | None:
    """Return the SHA-256 of what is trained and which layers are frozen; None if all is trained.

    >>> from jaxconv import Dense
    >>> params, state = Dense(2).init(jax.random.key(0), (3,))
    >>> mask_sha256(Dense(2), params, state, lambda path: path == "bias")[:8]
    '5f89c4fe'
    """
    if trainable is None:
        return None
    mask = paths(trainable_mask(params, trainable))
    lines = [f"{path} {trains}" for path, trains in mask.items()] + frozen_layers(model, params, state, trainable)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _in_use(layer: Layer) -> Layer:
    def apply(params: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
        return layer.apply(params, state, x, **options | {"train": False})[0], state

    return layer._replace(apply=apply)


def _completed(trained: Any, params: Any) -> Any:
    """Return the trained parameters with the frozen ones in their places."""
    masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda new, old: old if masked(new) else new, trained, params, is_leaf=masked)
