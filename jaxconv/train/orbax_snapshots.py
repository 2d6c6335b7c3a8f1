"""Read the snapshots that jaxconv wrote by orbax, in folders ``train`` and ``best`` of many files.

None is written so any more: with each, tensorstore, on which orbax stands, keeps 50 to 100 kB of memory for ever. Its
conversion of JSON into Python's dicts (``KvStore.Spec.to_json``, ``experimental_collect_matching_metrics``) never
releases the keys, and orbax calls it several times for each array.
"""

import hashlib
from pathlib import Path
from typing import Any

from jaxconv.errors import InputError
from jaxconv.train.snapshot import differences


def fault(path: Path, sums: dict[str, str]) -> str | None:
    """What is wrong with the files of a snapshot; None if they are as they were written."""
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    for name, digest in sums.items():
        if name not in files:
            return f"{name} is missing"
        if hashlib.sha256(files[name].read_bytes()).hexdigest() != digest:
            return f"{name} has changed"
    return None


def read(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The trees of a snapshot.

    Args:
        path: of the snapshot.
        wanted: trees of ``jax.ShapeDtypeStruct``, with the sharding that each array is to have.

    Raises:
        InputError: it is of another model, with every difference.
    """
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        differing = []
        for name, tree in wanted.items():
            differing += differences(checkpointer.metadata(path.absolute() / name).item_metadata.tree, tree)
        if differing:
            raise InputError(f"the checkpoint {path} is of another model: {'; '.join(differing)}")
        return {
            name: checkpointer.restore(path.absolute() / name, args=ocp.args.StandardRestore(tree))
            for name, tree in wanted.items()
        }
