"""Trees of arrays in ``.npz`` files, which NumPy reads too: each array under its path, ``params/conv1/kernel.npy``."""

import zipfile
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError

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


def paths(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths.

    >>> paths({"params": {"dense1": [1, 2]}})
    {'params/dense1/0': 1, 'params/dense1/1': 2}
    """
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


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
