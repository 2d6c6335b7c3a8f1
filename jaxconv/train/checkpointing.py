"""Checkpoints: snapshots on disk, written to a temporary folder and renamed, so a crash leaves the previous one intact.

checkpoints/history.jsonl    one record per epoch; a snapshot refers to the first records by their number of bytes
checkpoints/<steps>/
    train_state.npz     the train state, to resume training
    best_variables.npz  params and state of the best epoch, to evaluate and predict
    progress.json       progress of the run
    manifest.json       SHA-256 of these three files; a folder without it is not read
"""

import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import jax
import msgspec
from jax.sharding import Mesh

from jaxconv import checks, distributed
from jaxconv.errors import InputError, error_context
from jaxconv.train.history import HistoryPrefix, read_history, write_history
from jaxconv.train.snapshots import Snapshot, TrainProgress, read_arrays, write_arrays
from jaxconv.train.state import TrainState
from jaxconv.train.trees import paths, tree_differences
from jaxconv.utils.files import (
    MAX_JSON_BYTES,
    from_dict,
    open_file,
    read_bytes,
    read_json,
    sync_folder,
    write_json,
    writing,
)

T = TypeVar("T")
FILES = ("train_state.npz", "best_variables.npz", "progress.json")
MAX_ATTEMPTS = 10  # of a read, if training removes the checkpoint meanwhile


class _DamageError(Exception):
    """A checkpoint that is missing, or differs from what was written."""


def save_checkpoint(directory: Path, snapshot: Snapshot, *, max_to_keep: int = 2) -> None:
    """Write a snapshot into ``directory/<steps>``, then remove all but the last ``max_to_keep`` checkpoints.

    The files are synced to the disk before the folder gets its name: after a power cut, either this checkpoint is
    complete or the previous one is the newest. In a program of several processes all must call this; process 0 writes.

    Raises:
        InputError: if it cannot be written (previous checkpoints stay intact), or ``max_to_keep`` is below 1.
    """
    with error_context("save_checkpoint"):
        checks.at_least(1, max_to_keep=max_to_keep)
    previous, complete_dir = all_steps(directory), directory / str(int(snapshot.train_state.step.max()))
    trees = jax.tree.map(_gathered, _trees(snapshot.train_state, snapshot.best))
    problem: Exception | None = None
    if distributed.is_main_process():
        try:
            with _interrupt_deferred():
                _write(complete_dir, trees, snapshot.progress)
                for step in sorted({*previous, int(complete_dir.name)})[:-max_to_keep]:
                    with suppress(OSError):  # on Windows it may be open in a reader: the next save removes it
                        (directory / str(step)).rename(directory / f"partial-{step}")  # only complete ones are numbered
                _remove_partial(directory)
        except Exception as error:
            _remove_partial(directory)
            problem = error
    if not distributed.broadcast_from_main(problem is None):
        reason = "process 0 could not write it" if problem is None else _reason(problem)
        intact = f"; the previous one, {directory / str(previous[-1])}, is intact" if previous else ""
        raise InputError(f"the checkpoint {complete_dir} cannot be written: {reason}{intact}") from problem


def restore_snapshot(folder: Path, target: tuple[TrainState, tuple[Any, Any]], mesh: Mesh | None = None) -> Snapshot:
    """Read the newest snapshot.

    Args:
        folder: the ``directory`` of :func:`save_checkpoint`; a running training may save into it meanwhile.
        target: the train state and the best params and state, or their shapes.
        mesh: devices over which the arrays are replicated; by default they are put on the first device.

    Raises:
        InputError: if there is no checkpoint, the newest is of another model (all differences are listed), cannot be
            read, or is damaged (the newest intact one is named).
    """

    def read(path: Path) -> Snapshot:
        with _open_verified(path) as files:
            trees = _read_trees(path, files, _trees(*target), mesh)
            progress = _read_progress(path, files["progress.json"])
        return Snapshot(
            TrainState(**trees["train_state"]),
            (trees["best_variables"]["params"], trees["best_variables"]["state"]),
            progress,
        )

    return _read_newest(folder, read)


def restore_best(folder: Path, target: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read the params and the state of the best epoch.

    Args:
        folder: the ``directory`` of :func:`save_checkpoint`; a running training may save into it meanwhile.
        target: params and state of the same structure, or their shapes, from ``jax.eval_shape(model.init, …)``.

    Raises:
        InputError: as for :func:`restore_snapshot`.
    """

    def read(path: Path) -> tuple[Any, Any]:
        with _open_verified(path) as files:
            best = _read_trees(path, files, {"best_variables": _variables_dict(target)})["best_variables"]
        return best["params"], best["state"]

    return _read_newest(folder, read)


def all_steps(folder: Path) -> list[int]:
    """Return the step numbers of the complete checkpoints in a folder, in ascending order.

    Raises:
        InputError: if the folder exists and cannot be read, or is not a folder.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"the checkpoints in {folder} cannot be read: {error.strerror or error}") from None
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def read_extra(folder: Path) -> tuple[int, Any] | None:
    """Return the step number of the newest readable checkpoint and its ``progress.extra``.

    Args:
        folder: the ``directory`` of :func:`save_checkpoint`.

    Returns:
        ``(step, extra)``, or None if there is no checkpoint. Damaged ones are skipped without an error.
    """
    for step in reversed(all_steps(folder)):
        with suppress(InputError, FileNotFoundError):  # damaged, or removed by a running training
            path = folder / str(step) / "progress.json"
            content, digests = read_bytes(path, MAX_JSON_BYTES), read_json(path.with_name("manifest.json"))
            if isinstance(digests, dict) and digests.get(path.name) == hashlib.sha256(content).hexdigest():
                return step, from_dict(content, dict[str, Any], name=str(path)).get("extra")
    return None


def _trees(train_state: Any, best: Any) -> dict[str, dict[str, Any]]:
    return {"train_state": train_state._asdict(), "best_variables": _variables_dict(best)}


def _variables_dict(variables: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("params", "state"), variables, strict=True))


def _gathered(leaf: Any) -> Any:
    """Return the leaf, gathered from all processes if it is sharded over them."""
    is_sharded = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated
    return distributed.process_allgather(leaf) if is_sharded else leaf


def _write(complete_dir: Path, trees: dict[str, Any], progress: TrainProgress) -> None:
    folder, partial_dir = complete_dir.parent, complete_dir.with_name(f"partial-{complete_dir.name}")
    if not folder.exists():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    _remove_partial(folder)
    partial_dir.mkdir()
    for name, tree in trees.items():
        with writing(partial_dir / f"{name}.npz") as file:
            write_arrays(file, tree)
    history = write_history(folder, progress.history)
    write_json(partial_dir / "progress.json", progress._replace(history=()).to_dict() | {"history": history})
    digests = {}
    for name in FILES:
        with open_file(partial_dir / name) as file:
            digests[name] = _sha256(file)
    write_json(partial_dir / "manifest.json", digests)
    os.replace(partial_dir, complete_dir)
    sync_folder(folder)


def _read_newest(folder: Path, read: Callable[[Path], T]) -> T:
    """Return ``read`` of the newest checkpoint; if that is removed meanwhile, try the then newest."""
    for _ in range(MAX_ATTEMPTS):
        steps = all_steps(folder)
        if not steps:
            raise InputError(f"{folder.parent} has no checkpoint: did its training stop before the first epoch ended?")
        newest, *older = [folder / str(step) for step in reversed(steps)]
        try:
            return read(newest)
        except _DamageError as damage:
            if newest.exists():
                raise InputError(f"the checkpoint {newest} is damaged ({damage}): {_fallback(newest, older)}") from None
    raise InputError(f"the checkpoints in {folder} are replaced faster than they can be read: try again")


def _fallback(newest: Path, older: list[Path]) -> str:
    """Return the sentence that names the checkpoints to delete, and the newest intact one."""
    damaged = [newest]
    for path in older:
        try:
            with _open_verified(path) as files:
                _read_progress(path, files["progress.json"])
            return f"delete {' and '.join(map(str, damaged))} to use {path}, which is intact"
        except _DamageError:
            damaged.append(path)
    return "no other checkpoint is intact"


@contextmanager
def _open_verified(path: Path) -> Iterator[dict[str, BinaryIO]]:
    """Open the files of a checkpoint and verify their SHA-256; they stay readable if the folder is removed."""
    with ExitStack() as stack:
        files = {}
        with _errors_as_damage():
            digests = from_dict(
                read_bytes(path / "manifest.json", MAX_JSON_BYTES), dict[str, str], name="manifest.json"
            )
        if "position.json" in digests:
            raise InputError(f"the checkpoint {path} was written by an older jaxconv: train again")
        with _errors_as_damage():
            for name in FILES:
                if name not in digests:
                    raise _DamageError(f"manifest.json does not list {name}")
                files[name] = stack.enter_context(open_file(path / name))
                if _sha256(files[name]) != digests[name]:
                    raise _DamageError(f"{name} has changed")
        yield files


def _read_trees(
    path: Path, files: dict[str, BinaryIO], target: dict[str, Any], mesh: Mesh | None = None
) -> dict[str, Any]:
    """Return the trees of a checkpoint on this machine's devices, which may be of another kind than the writer's."""
    arrays, differences = {}, []
    for name, tree in target.items():
        with _errors_as_damage(f"{name}.npz: "):
            arrays[name] = read_arrays(files[f"{name}.npz"])
        differences += tree_differences(arrays[name], tree)
    if differences:
        raise InputError(f"the checkpoint {path} is of another model: {'; '.join(differences)}")
    trees = {
        name: jax.tree.unflatten(jax.tree.structure(tree), [arrays[name][leaf_path] for leaf_path in paths(tree)])
        for name, tree in target.items()
    }
    return distributed.replicate(mesh, trees) if mesh else jax.device_put(trees, jax.local_devices()[0])


def _read_progress(path: Path, file: BinaryIO) -> TrainProgress:
    with _errors_as_damage("progress.json: "):
        fields = from_dict(file.read(), dict[str, Any], name="it")
        prefix = msgspec.convert(fields.pop("history", None), HistoryPrefix)
        progress = TrainProgress.from_dict(fields)
    with _errors_as_damage():
        return progress._replace(history=read_history(path.parent, prefix))


@contextmanager
def _errors_as_damage(context: str = "") -> Iterator[None]:
    """Convert errors of reading a file to :class:`_DamageError`, except a lack of permission."""
    try:
        yield
    except FileNotFoundError as error:
        raise _DamageError(f"{context}{Path(error.filename).name} is missing") from None
    except (InputError, msgspec.ValidationError) as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise _DamageError(f"{context}{error}") from None
    except OSError as error:
        raise _DamageError(f"{context}{_reason(error)}") from None


def _sha256(file: Any) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _remove_partial(folder: Path) -> None:
    """Remove unfinished checkpoints of killed or failed writes, and those renamed for removal."""
    for path in folder.glob("partial-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or str(cause).strip() or type(cause).__name__
    return text.splitlines()[0][:300]


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Defer Ctrl-C to the end of a write, so that the trained epoch is saved."""
    is_main_thread = threading.current_thread() is threading.main_thread()  # only it may set signal handlers
    if not is_main_thread or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # or the parent ignores SIGINT
        yield
        return
    interrupts = []
    previous = signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt
