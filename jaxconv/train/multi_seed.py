"""Training of one network or of several stacked networks: the operations that differ between the two."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.train.loaders import EpochPlan, epoch_indices
from jaxconv.train.state import split_seed


class Copies(Protocol):
    """The networks that a loop trains: :class:`Single` or :class:`Stacked`."""

    @property
    def num_members(self) -> int | None:
        """Number of networks; None for one network without a network axis."""

    def keys(self) -> tuple[jax.Array, jax.Array]:
        """Return the key of initialization and the key of the steps."""

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        """Return the function vectorized over the networks."""

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        """Return the example indices of an epoch: ``(executions, [networks,] steps_per_execution, B)``."""

    def member(self, tree: Any, index: int) -> Any:
        """Return the leaves of one network."""

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        """Return ``new`` where ``better`` is True and ``old`` elsewhere, network by network."""


class Single(NamedTuple):
    """One network, without a network axis: functions are compiled as they are."""

    seed: int

    @property
    def num_members(self) -> None:
        return None

    def keys(self) -> tuple[jax.Array, jax.Array]:
        return split_seed(self.seed)

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        return function

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        return epoch_indices(plan, self.seed, epoch)

    def member(self, tree: Any, index: int) -> Any:
        return tree

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        return copy_arrays(new) if better.all() else old


class Stacked(NamedTuple):
    """One network per seed, stacked along the first axis of every array.

    >>> stacked = Stacked((3, 0))
    >>> init_keys, step_keys = stacked.keys()
    >>> init_keys.shape, bool(stacked.member(init_keys, 1) == Single(0).keys()[0])
    ((2,), True)
    >>> stacked.select(np.array([True, False]), jnp.array([1, 2]), jnp.array([3, 4])).tolist()
    [1, 4]
    """

    seeds: tuple[int, ...]

    @property
    def num_members(self) -> int:
        return len(self.seeds)

    def keys(self) -> tuple[jax.Array, jax.Array]:
        init_keys, step_keys = zip(*map(split_seed, self.seeds), strict=True)
        return jnp.stack(init_keys), jnp.stack(step_keys)

    def transform(self, function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        return jax.vmap(function, in_axes)

    def batch_indices(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        return np.stack([epoch_indices(plan, seed, epoch) for seed in self.seeds], axis=1)

    def member(self, tree: Any, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    def select(self, better: np.ndarray, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def copy_arrays(tree: Any) -> Any:
    """Copy all arrays: the compiled training function donates the memory of its train state."""
    return jax.tree.map(jnp.copy, tree)
