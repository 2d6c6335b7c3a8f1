"""One network or several in one program: the operations in which training differs between them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.train.loaders import EpochPlan, epoch_rows
from jaxconv.train.state import split_seed


class Copies(Protocol):
    """The networks that a loop trains: :class:`Single` or :class:`Stacked`."""

    @property
    def num_members(self) -> int | None:
        """Number of networks; None: one network, whose arrays have no axis for it."""

    def keys(self) -> tuple[jax.Array, jax.Array]:
        """Return the key of initialization and the key of the steps."""

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        """Return the function of one network as a function of all of them."""

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        """Return the example indices of an epoch, chunk by chunk: ``(chunks, …, chunk, B)``."""

    def member(self, tree: Any, index: int) -> Any:
        """Return one network's part of a tree."""

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        """Return ``new`` where ``better`` is True and ``old`` elsewhere, network by network."""


class Single(NamedTuple):
    """One network; its arrays have no axis for it, so its program is that of the function itself."""

    seed: int

    @property
    def num_members(self) -> None:
        return None

    def keys(self) -> tuple[jax.Array, jax.Array]:
        return split_seed(self.seed)

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        return function

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        return epoch_rows(plan, self.seed, epoch)

    def member(self, tree: Any, index: int) -> Any:
        return tree

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        return copied(new) if better.all() else old


class Stacked(NamedTuple):
    """One network a seed, in arrays whose first axis counts the networks.

    >>> both = Stacked((3, 0))
    >>> init, steps = both.keys()
    >>> init.shape, bool(both.member(init, 1) == Single(0).keys()[0])
    ((2,), True)
    >>> both.select(np.array([True, False]), jnp.array([1, 2]), jnp.array([3, 4])).tolist()
    [1, 4]
    """

    seeds: tuple[int, ...]

    @property
    def num_members(self) -> int:
        return len(self.seeds)

    def keys(self) -> tuple[jax.Array, jax.Array]:
        init, steps = zip(*map(split_seed, self.seeds), strict=True)
        return jnp.stack(init), jnp.stack(steps)

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        return jax.vmap(function, in_axes)

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        return np.stack([epoch_rows(plan, seed, epoch) for seed in self.seeds], axis=1)

    def member(self, tree: Any, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def copied(tree: Any) -> Any:
    """Return the same arrays in memory of their own: a training chunk reuses that of its train state."""
    return jax.tree.map(jnp.copy, tree)
