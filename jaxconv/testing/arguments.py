"""Floating arrays among arguments, and functions of them that return one array."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError


def floating_leaves(
    args: tuple[Any, ...], names: Sequence[str]
) -> tuple[list[str], list[jax.Array], Callable[[Sequence[jax.Array]], tuple[Any, ...]]]:
    """Return the names (``params/conv1/kernel``) and values of the floating leaves of arguments, and their inverse.

    The inverse rebuilds the arguments from new floating leaves. All other leaves (labels, a window, the name of a
    padding) are passed on unchanged.
    """
    all_leaves, tree = jax.tree_util.tree_flatten_with_path(args)
    names = [*names, *(f"argument {i}" for i in range(len(names), len(args)))]
    paths, indices = [], []
    for i, (path, leaf) in enumerate(all_leaves):
        if _is_floating(leaf):
            path_suffix = jax.tree_util.keystr(path[1:], simple=True, separator="/")
            paths.append("/".join(filter(None, [names[path[0].idx], path_suffix])))
            indices.append(i)
    if not any(np.size(all_leaves[i][1]) for i in indices):
        raise InputError("expected at least one argument with a non-empty floating array to differentiate by")

    def rebuild(leaves: Sequence[jax.Array]) -> tuple[Any, ...]:
        values = [leaf for _, leaf in all_leaves]
        for i, leaf in zip(indices, leaves, strict=True):
            values[i] = leaf
        return jax.tree.unflatten(tree, values)

    return paths, [jnp.asarray(all_leaves[i][1]) for i in indices], rebuild


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray | np.generic | jax.Array):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


def argument_names(f: Callable[..., Any]) -> list[str]:
    """Return the parameter names of f; empty if its signature is not available."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # of functions written in C
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def of_leaves(
    name: str, f: Callable[..., Any], leaves: Sequence[jax.Array], rebuild: Callable[..., tuple[Any, ...]]
) -> tuple[Callable[[Sequence[jax.Array]], jax.Array], jax.ShapeDtypeStruct]:
    """Return f as a function of the floating arrays alone, and the shape and dtype of its output.

    Raises:
        InputError: if f is not callable, or does not return one floating array.
    """
    if not callable(f):
        raise InputError(f"{name} must be a function of the arguments, got {f!r}")
    y = jax.eval_shape(lambda leaves: f(*rebuild(leaves)), leaves)
    if not isinstance(y, jax.ShapeDtypeStruct) or not jnp.issubdtype(y.dtype, jnp.floating):
        raise InputError(f"{name} must return one floating array, got {y}")
    return lambda leaves: jnp.asarray(f(*rebuild(leaves))), y


def floating_dtype(dtype: Any) -> None:
    """Raise InputError unless the dtype is a floating one.

    >>> floating_dtype("bfloat16")
    """
    try:
        floating = jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise InputError(f"dtype={dtype!r} should be a floating one, such as jnp.float32")
