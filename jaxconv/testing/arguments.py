"""What is compared: the floating arrays among some arguments, and functions of them that return one array."""

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
    """The floating arrays among some arguments, their names (``params/conv1/kernel``), and the way back.

    All else (labels, a window, the name of a padding) stays what it is, so that a function meets it as if it were
    called with it.
    """
    found, tree = jax.tree_util.tree_flatten_with_path(args)
    names = [*names, *(f"argument {i}" for i in range(len(names), len(args)))]
    paths, where = [], []
    for k, (path, leaf) in enumerate(found):
        if _is_floating(leaf):
            rest = jax.tree_util.keystr(path[1:], simple=True, separator="/")
            paths.append("/".join(filter(None, [names[path[0].idx], rest])))
            where.append(k)
    if not any(np.size(found[k][1]) for k in where):
        raise InputError("no argument is or holds a floating array with a number in it to differentiate by")

    def rebuild(leaves: Sequence[jax.Array]) -> tuple[Any, ...]:
        every = [leaf for _, leaf in found]
        for k, leaf in zip(where, leaves, strict=True):
            every[k] = leaf
        return jax.tree.unflatten(tree, every)

    return paths, [jnp.asarray(found[k][1]) for k in where], rebuild


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray | np.generic | jax.Array):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


def argument_names(f: Callable[..., Any]) -> list[str]:
    """The names that f gives its arguments, as far as it tells."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # written in C
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def of_leaves(
    name: str, f: Callable[..., Any], leaves: Sequence[jax.Array], rebuild: Callable[..., tuple[Any, ...]]
) -> tuple[Callable[[Sequence[jax.Array]], jax.Array], jax.ShapeDtypeStruct]:
    """f as a function of the floating arrays alone, and the shape and dtype of what it returns.

    Raises:
        InputError: f is no function, or does not return one floating array.
    """
    if not callable(f):
        raise InputError(f"{name} is {f!r}, which is no function: give one that takes the arguments")
    y = jax.eval_shape(lambda leaves: f(*rebuild(leaves)), leaves)
    if not isinstance(y, jax.ShapeDtypeStruct) or not jnp.issubdtype(y.dtype, jnp.floating):
        raise InputError(f"{name} should return one floating array; it returns {y}")
    return lambda leaves: jnp.asarray(f(*rebuild(leaves))), y


def floating_dtype(dtype: Any) -> None:
    """Refuse a dtype that has no gradients, or that nobody knows.

    >>> floating_dtype("bfloat16")
    """
    try:
        floating = jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise InputError(f"dtype={dtype!r} should be a floating one, such as jnp.float32")
