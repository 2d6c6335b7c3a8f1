"""Snapshots of training: all arrays and the progress of a run between two executions.

Arrays are stored in ``.npz`` files that NumPy reads, each under its path, ``params/conv1/kernel.npy``. Orbax is not
used: each save leaks 50 to 100 kB in tensorstore, on which it is built. The conversion from JSON to Python dicts
(``KvStore.Spec.to_json``) never releases the keys, and orbax calls it several times per array.
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

KEY = "key:"  # prefix of the field name of random keys; the implementation follows


def write_arrays(file: BinaryIO, tree: Any) -> None:
    """Write the arrays of a tree; every dtype of JAX is supported.

    NumPy's format has no bfloat16 and no random keys. Such an array is written as a structured array with a single
    field, whose name is the dtype.

    Raises:
        InputError: if two arrays have the same path, such as in ``{"a/b": x, "a": {"b": y}}``.

    >>> import io
    >>> file = io.BytesIO()
    >>> write_arrays(file, {"params": {"conv1": {"kernel": jnp.ones((3, 3), "bfloat16")}}})
    >>> _ = file.seek(0)
    >>> {path: (array.dtype.name, array.shape) for path, array in read_arrays(file).items()}
    {'params/conv1/kernel': ('bfloat16', (3, 3))}
    """
    arrays: dict[str, Any] = {path: _as_numpy(leaf) for path, leaf in paths(tree).items()}
    if len(arrays) < len(jax.tree.leaves(tree)):
        raise InputError("two arrays have the same path, as in {'a/b': x, 'a': {'b': y}}: rename a layer")
    with zipfile.ZipFile(file, "w") as archive:  # np.savez of NumPy 2.0 leaks it if the disk is full
        for path, array in arrays.items():
            with archive.open(f"{path}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_arrays(file: BinaryIO) -> dict[str, Any]:
    """Read the arrays that :func:`write_arrays` wrote, by path.

    Raises:
        InputError: if the file is of another format, or contains Python objects or compressed arrays, whose size is
            unbounded.
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
        raise InputError(f"not an archive of arrays: {error or type(error).__name__}") from None
    return arrays


def _as_numpy(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _as_structured(np.asarray(jax.random.key_data(leaf)), f"{KEY}{jax.random.key_impl(leaf)}")
    array = np.asarray(leaf)
    # isbuiltin is 2 for the dtypes of ml_dtypes, which NumPy's format does not support.
    return _as_structured(array, array.dtype.name) if array.dtype.isbuiltin == 2 else array


def _as_structured(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.view([(dtype, f"V{array.dtype.itemsize}")])


def _from_numpy(array: np.ndarray) -> Any:
    if array.dtype.names is None:
        return array
    (dtype,) = array.dtype.names
    if dtype.startswith(KEY):
        return jax.random.wrap_key_data(jnp.asarray(array.view(np.uint32)), impl=dtype.removeprefix(KEY))
    return array.view(jnp.dtype(dtype))


class TrainProgress(NamedTuple):
    """Progress of a run: position, metrics and history, everything except arrays; JSON-serializable."""

    plan: EpochPlan | None = None  # of every epoch
    epoch: int = 0  # number of completed epochs
    execution: int = 0  # number of completed executions of the current epoch
    metric_sums: tuple[dict[str, Any], ...] = ()  # sums of the metrics and "count", per completed execution
    history: tuple[dict[str, Any], ...] = ()  # one record per epoch
    early_stopping: tuple[EarlyStoppingState, ...] = ()  # one state per network
    seconds: float = 0.0  # training time of the completed epochs
    chunk_seconds: float = 0.0  # training time of the current epoch
    trainable: str | None = None  # SHA-256 of the mask of trained parameters; None: all are trained
    loader_state: Any = None  # state of the stream, if training data is streamed
    extra: Any = None  # JSON-serializable data of the caller

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as lists, dicts, strings and numbers."""
        sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).tolist(), jax.device_get(self.metric_sums))
        return self._replace(metric_sums=sums)._asdict()

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TrainProgress":
        """Return the progress from the dict of :meth:`to_dict`.

        Raises:
            InputError: if a value is of another type.
        """
        fields = {name: content.get(name, default) for name, default in cls._field_defaults.items()}
        try:
            progress: TrainProgress = msgspec.convert(list(fields.values()), cls)
            progress.sums()
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{error}") from None
        return progress

    def sums(self) -> MetricSums:
        """Return the sums of the metrics over the current epoch, in float64, ``()`` or ``(networks,)``."""
        executions = jax.device_get(self.metric_sums)
        names = executions[0] if executions else ()
        sums = {
            name: np.asarray([execution[name] for execution in executions], np.float64).sum(axis=0) for name in names
        }
        return MetricSums(sums, sums.pop("count", 0))


class Snapshot(NamedTuple):
    """Copies of the arrays of a run, and its progress."""

    train_state: TrainState
    best: tuple[Any, Any]  # params and state of the best epoch
    progress: TrainProgress


def tree_sha256(tree: Any) -> str:
    """Return the SHA-256 over the bytes of all arrays in path order; equal if the networks are equal bit for bit.

    >>> params = {"dense1": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}}
    >>> trees = params, jax.tree.map(np.copy, params), {"dense1": params["dense1"]["bias"]}
    >>> tuple(tree_sha256(tree)[:8] for tree in trees)
    ('3b8974da', '3b8974da', '374708ff')
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
