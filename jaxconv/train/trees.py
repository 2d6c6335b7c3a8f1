"""Trees of arrays by the paths of their leaves."""

from typing import Any

import jax


def paths(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path.

    >>> paths({"params": {"dense1": [1, 2]}})
    {'params/dense1/0': 1, 'params/dense1/1': 2}
    """
    return {path_text(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def path_text(path: Any) -> str:
    """Return a JAX key path as a string with slashes: ``"conv1/kernel"``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_differences(actual: Any, expected: Any) -> list[str]:
    """Return a line for each path that is in one tree only, or differs in shape or dtype."""
    actual_types, expected_types = _leaf_types(actual), _leaf_types(expected)
    return [
        f"{path}: expected {expected_types.get(path, 'nothing')}, got {actual_types.get(path, 'nothing')}"
        for path in sorted(actual_types.keys() | expected_types.keys())
        if actual_types.get(path) != expected_types.get(path)
    ]


def _leaf_types(tree: Any) -> dict[str, str]:
    return {path: f"{leaf.dtype}{tuple(leaf.shape)}" for path, leaf in paths(tree).items()}
