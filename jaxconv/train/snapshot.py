"""All that a run is between two chunks: with it, training goes on as if it had never stopped."""

import hashlib
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from jaxconv.errors import InputError
from jaxconv.train.batches import Plan
from jaxconv.train.early_stopping import Stopping
from jaxconv.train.snapshots import paths
from jaxconv.train.state import TrainState


class Position(NamedTuple):
    """How far a run has come, and what it has found: everything that is no array. It goes into JSON and back."""

    plan: Plan | None = None  # how the epochs are cut
    epoch: int = 0  # whole epochs done
    chunk: int = 0  # chunks done of the epoch after them
    measured: tuple[Any, ...] = ()  # loss, correct answers and examples of each of these chunks
    history: tuple[dict[str, Any], ...] = ()  # a record an epoch
    stopping: tuple[Stopping, ...] = ()  # one for each network
    seconds: float = 0.0  # of training, so far
    chunk_seconds: float = 0.0  # of these chunks
    reader: Any = None  # where the stream of examples stands, if there is one
    extra: Any = None  # what the caller wants to have saved with it, in values of JSON

    def as_json(self) -> dict[str, Any]:
        """In lists, dicts, strings and numbers."""
        measured = tuple(np.asarray(jax.device_get(sums), np.float64).tolist() for sums in self.measured)
        return self._replace(measured=measured)._asdict()

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Position":
        """The position that :meth:`as_json` wrote down.

        Raises:
            InputError: a value of another type.
        """
        fields = {name: facts.get(name, default) for name, default in cls._field_defaults.items()}
        try:
            position: Position = msgspec.convert(list(fields.values()), cls)
            position.sums()
        except (ValueError, TypeError) as error:
            raise InputError(f"{error}") from None
        return position

    def sums(self) -> np.ndarray:
        """Loss, correct answers and examples of the epoch so far; of several networks a column for each."""
        return np.asarray(jax.device_get(self.measured), np.float64).sum(axis=0)


class Snapshot(NamedTuple):
    """The arrays and the position, in memory of their own."""

    train_state: TrainState
    best: tuple[Any, Any]  # params and state of the best epoch
    position: Position


def sha256(tree: Any) -> str:
    """SHA-256 over the bytes of every array, in the order of their paths: two networks are equal bit for bit, or not.

    >>> params = {"dense1": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}}
    >>> sha256(params)[:8], sha256(jax.tree.map(np.copy, params))[:8], sha256({"dense1": params["dense1"]["bias"]})[:8]
    ('3b8974da', '3b8974da', '374708ff')
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def differences(found: Any, wanted: Any) -> list[str]:
    """Every path that is in one tree only, or of another shape or dtype."""
    here, there = _shapes(found), _shapes(wanted)
    return [
        f"{path} is {here.get(path, 'missing')} where {there.get(path, 'nothing')} is wanted"
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]


def _shapes(tree: Any) -> dict[str, str]:
    return {path: f"{leaf.dtype}{tuple(leaf.shape)}" for path, leaf in paths(tree).items()}
