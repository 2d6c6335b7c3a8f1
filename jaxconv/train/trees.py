"""Trees of arrays by the paths of their leaves."""

from typing import Any

import jax


def paths(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths.

    >>> paths({"params": {"dense1": [1, 2]}})
    {'params/dense1/0': 1, 'params/dense1/1': 2}
    """
    return {path_text(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def path_text(path: Any) -> str:
    """Return a path of jax's as a string with slashes: ``"conv1/kernel"``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_differences(found: Any, wanted: Any) -> list[str]:
    """Every path that is in one tree only, or of another shape or dtype."""
    here, there = _shapes(found), _shapes(wanted)
    return [
        f"{path} is {here.get(path, 'missing')} where {there.get(path, 'nothing')} is wanted"
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]


def _shapes(tree: Any) -> dict[str, str]:
    return {path: f"{leaf.dtype}{tuple(leaf.shape)}" for path, leaf in paths(tree).items()}
