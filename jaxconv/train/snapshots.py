"""Snapshots of training: all arrays of a run between two executions, in ``.npz`` files that NumPy reads, too.

Each array lies under its path, ``params/conv1/kernel.npy``. They are not orbax's: with
every save tensorstore, on which orbax stands, keeps 50 to 100 kB of memory. Its conversion of JSON into Python's dicts
(``KvStore.Spec.to_json``) never releases the keys, and orbax calls it several times for each array.
"""

import hashlib
import zipfile
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxconv.errors import InputError
from jaxconv.train.early_stopping import EarlyStoppingState
from jaxconv.train.loaders import EpochPlan
from jaxconv.train.state import TrainState
from jaxconv.train.tasks import MetricSums
from jaxconv.train.trees import paths

KEY = "key:"  # and the name of its implementation: the dtype of random keys


def write_arrays(file: BinaryIO, tree: Any) -> None:
    """Write the arrays of a tree, of any dtype that JAX has.

    NumPy's format has no bfloat16 and no random keys. Such an array is written as a structured one of a single field,
    whose name is the dtype.

    Raises:
        InputError: two arrays of one path, such as ``{"a/b": x, "a": {"b": y}}``.

    >>> import io
    >>> file = io.BytesIO()
    >>> write_arrays(file, {"params": {"conv1": {"kernel": jnp.ones((3, 3), "bfloat16")}}})
    >>> _ = file.seek(0)
    >>> {path: (array.dtype.name, array.shape) for path, array in read_arrays(file).items()}
    {'params/conv1/kernel': ('bfloat16', (3, 3))}
    """
    arrays: dict[str, Any] = {path: _as_numpy(leaf) for path, leaf in paths(tree).items()}
    if len(arrays) < len(jax.tree.leaves(tree)):
        raise InputError("two arrays have one path, as in {'a/b': x, 'a': {'b': y}}: rename a layer")
    with zipfile.ZipFile(file, "w") as archive:  # np.savez leaves it open where the disk is full, on NumPy 2.0
        for path, array in arrays.items():
            with archive.open(f"{path}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_arrays(file: BinaryIO) -> dict[str, Any]:
    """The arrays that :func:`write_arrays` wrote, by their paths.

    Raises:
        InputError: another file, or one of Python objects, or of compressed arrays, which could be of any size.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:
                    raise InputError(f"{info.filename} is compressed")
                with archive.open(info) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                arrays[info.filename.removesuffix(".npy")] = _from_numpy(array)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"it is no archive of arrays: {error or type(error).__name__}") from None
    return arrays


def _as_numpy(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _named(np.asarray(jax.random.key_data(leaf)), f"{KEY}{jax.random.key_impl(leaf)}")
    array = np.asarray(leaf)
    return _named(array, array.dtype.name) if array.dtype.isbuiltin == 2 else array  # 2: not one of NumPy's own


def _named(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.view([(dtype, f"V{array.dtype.itemsize}")])


def _from_numpy(array: np.ndarray) -> Any:
    if array.dtype.names is None:
        return array
    (dtype,) = array.dtype.names
    if dtype.startswith(KEY):
        return jax.random.wrap_key_data(jnp.asarray(array.view(np.uint32)), impl=dtype.removeprefix(KEY))
    return array.view(jnp.dtype(dtype))


class TrainProgress(NamedTuple):
    """How far a run has come, and what it has found: everything that is no array. It goes into JSON and back."""

    plan: EpochPlan | None = None  # how the epochs are cut
    epoch: int = 0  # whole epochs done
    execution: int = 0  # chunks done of the epoch after them
    metric_sums: tuple[dict[str, Any], ...] = ()  # sums of the metrics and "count" of each of these chunks
    history: tuple[dict[str, Any], ...] = ()  # a record an epoch
    early_stopping: tuple[EarlyStoppingState, ...] = ()  # one for each network
    seconds: float = 0.0  # of training, so far
    chunk_seconds: float = 0.0  # of these chunks
    trainable: str | None = None  # SHA-256 of which parameters are trained; None: all
    loader_state: Any = None  # where the stream of examples stands, if there is one
    extra: Any = None  # what the caller wants to have saved with it, in values of JSON

    def to_dict(self) -> dict[str, Any]:
        """In lists, dicts, strings and numbers."""
        measured = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).tolist(), jax.device_get(self.metric_sums))
        return self._replace(metric_sums=measured)._asdict()

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> "TrainProgress":
        """The position that :meth:`to_dict` wrote down.

        Raises:
            InputError: a value of another type.
        """
        fields = {name: facts.get(name, default) for name, default in cls._field_defaults.items()}
        try:
            position: TrainProgress = msgspec.convert(list(fields.values()), cls)
            position.sums()
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{error}") from None
        return position

    def sums(self) -> MetricSums:
        """Return the metrics' sums over the epoch so far, in float64; of several networks with a first axis."""
        each = jax.device_get(self.metric_sums)
        names = each[0] if each else ()
        sums = {name: np.asarray([chunk[name] for chunk in each], np.float64).sum(axis=0) for name in names}
        return MetricSums(sums, sums.pop("count", 0))


class Snapshot(NamedTuple):
    """The arrays and the progress, in memory of their own."""

    train_state: TrainState
    best: tuple[Any, Any]  # params and state of the best epoch
    progress: TrainProgress


def tree_sha256(tree: Any) -> str:
    """SHA-256 over the bytes of every array, in the order of their paths: two networks are equal bit for bit, or not.

    >>> params = {"dense1": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}}
    >>> trees = params, jax.tree.map(np.copy, params), {"dense1": params["dense1"]["bias"]}
    >>> tuple(tree_sha256(tree)[:8] for tree in trees)
    ('3b8974da', '3b8974da', '374708ff')
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
