"""Frozen parameters: the mask of trained parameters, and an optimizer and a model that keep the others fixed."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxconv.errors import InputError
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import get_subtree, map_layers
from jaxconv.train.trees import path_text, paths

Trainable = Callable[[str], bool] | Any  # function of a path such as "conv1/kernel", or a tree of bools like params


def trainable_mask(params: Any, trainable: Trainable | None) -> Any:
    """Return the mask of trained parameters, a tree of bools like the parameters.

    Args:
        params: the parameters, or their shapes.
        trainable: a function ``path -> bool``, such as ``lambda path: path.startswith("dense2")``; a tree of bools
            like ``params``; or None for all.

    Raises:
        InputError: if a tree has other paths than ``params`` or leaves that are not bools, or nothing is trained.

    >>> trainable_mask({"conv1": {"bias": 0, "kernel": 0}, "dense1": {"bias": 0}}, lambda path: "kernel" in path)
    {'conv1': {'bias': False, 'kernel': True}, 'dense1': {'bias': False}}
    """
    if trainable is None:
        return jax.tree.map(lambda _: True, params)
    names = list(paths(params))
    if callable(trainable):
        mask = jax.tree_util.tree_map_with_path(lambda path, _: bool(trainable(path_text(path))), params)
    else:
        mask, by_path = trainable, paths(trainable)
        if different := sorted(by_path.keys() ^ set(names)):
            raise InputError(f"trainable must have the paths of params; it differs in {', '.join(different)}")
        if invalid := [name for name, leaf in by_path.items() if not isinstance(leaf, bool)]:
            raise InputError(f"trainable must be a tree of bools, got {by_path[invalid[0]]!r} at {invalid[0]}")
    if not any(jax.tree.leaves(mask)):
        raise InputError(f"trainable selects no parameter of {', '.join(names)}")
    return mask


def freeze_untrained(optimizer: optax.GradientTransformation, trainable: Trainable) -> optax.GradientTransformation:
    """Return the optimizer for the trained parameters only; it keeps no state for the others."""
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda is_trained: "train" if is_trained else "freeze", trainable_mask(params, trainable))

    groups = {"train": optimizer, "freeze": optax.set_to_zero()}
    partitioned = optax.partition(groups, labels, mask_compatible_extra_args=True)

    def update(grads: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        if "value_fn" in extra_args:  # the optimizer calls it with the trained parameters only
            value_fn = extra_args["value_fn"]
            extra_args["value_fn"] = lambda trained: value_fn(_merge_frozen(trained, params))
        return partitioned.update(grads, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(partitioned.init, update)


def freeze_model(model: Layer, trainable: Trainable) -> Layer:
    """Return the model with frozen parameters that have no gradient, and frozen layers that keep their state.

    A layer with state, such as ``BatchNorm``, is frozen if all its parameters and state are; it is then applied with
    ``train=False``. A function ``trainable`` is called with the paths of the state as well; with a tree, a layer is
    frozen if it has parameters and none is trained.
    """
    model = as_layer(model)

    def apply(params: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
        mask = trainable_mask(params, trainable)
        stopped = jax.tree.map(lambda p, is_trained: p if is_trained else jax.lax.stop_gradient(p), params, mask)
        frozen = frozen_layers(model, params, state, trainable)
        partly_frozen = map_layers(model, lambda path, layer: _in_inference(layer) if path in frozen else layer)
        return partly_frozen.apply(stopped, state, x, **options)

    return model._replace(apply=apply)


def frozen_layers(model: Layer, params: Any, state: Any, trainable: Trainable) -> list[str]:
    """Return the paths of the frozen layers that have state."""
    mask, frozen = trainable_mask(params, trainable), []

    def visit(path: str, layer: Layer) -> Layer:
        layer_state = get_subtree(state, path) if path else state
        is_trained = list(paths(get_subtree(mask, path) if path else mask).values())
        if callable(trainable):
            is_trained += [bool(trainable(f"{path}/{name}".strip("/"))) for name in paths(layer_state)]
        if jax.tree.leaves(layer_state) and is_trained and not any(is_trained):
            frozen.append(path)
        return layer

    map_layers(model, visit)
    return frozen


def mask_sha256(model: Layer, params: Any, state: Any, trainable: Trainable | None) -> str | None:
    """Return the SHA-256 of the mask and the frozen layers; None if all parameters are trained.

    >>> from jaxconv import Dense
    >>> params, state = Dense(2).init(jax.random.key(0), (3,))
    >>> mask_sha256(Dense(2), params, state, lambda path: path == "bias")[:8]
    '5f89c4fe'
    """
    if trainable is None:
        return None
    mask = paths(trainable_mask(params, trainable))
    lines = [f"{path} {is_trained}" for path, is_trained in mask.items()] + frozen_layers(
        model, params, state, trainable
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _in_inference(layer: Layer) -> Layer:
    """Return the layer applied with ``train=False``; its state stays unchanged."""

    def apply(params: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
        return layer.apply(params, state, x, **options | {"train": False})[0], state

    return layer._replace(apply=apply)


def _merge_frozen(trained: Any, params: Any) -> Any:
    """Return the trained parameters, with masked nodes replaced by the frozen parameters."""
    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda new, old: old if is_masked(new) else new, trained, params, is_leaf=is_masked)
