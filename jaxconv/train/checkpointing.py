"""Snapshots on disk: written beside and renamed when they are whole, so a crash leaves the last good one.

checkpoints/history.jsonl    a record an epoch; each snapshot knows how many of them are its own
checkpoints/<steps made>/
    train_state.npz     the train state: with it, training goes on
    best_variables.npz  params and state of the best epoch: for everything else
    progress.json       where in the run it was taken
    manifest.json       the SHA-256 of these files, without which none is read
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
from jaxconv.train.history import Part, read_history, write_history
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
TRIES = 10  # of a reader, when what it reads is removed meanwhile


class _DamageError(Exception):
    """A snapshot that is not as it was written, or is no longer there."""


def save_checkpoint(directory: Path, snapshot: Snapshot, *, max_to_keep: int = 2) -> None:
    """Write a snapshot into ``directory/<steps>``, then remove those that are no longer among the last ``max_to_keep``.

    All of it is on the disk, not only in the system's memory, before it takes its name: a power cut leaves it whole,
    or the one before it. Several processes do it together: each calls this, and the first writes.

    Raises:
        InputError: it cannot be written, and those before it are as they were; or a ``max_to_keep`` below 1.
    """
    with error_context("save_checkpoint"):
        checks.at_least(1, max_to_keep=max_to_keep)
    before, whole = all_steps(directory), directory / str(int(snapshot.train_state.step.max()))
    trees = jax.tree.map(_here, _trees(snapshot.train_state, snapshot.best))
    problem: Exception | None = None
    if distributed.is_main_process():
        try:
            with _uninterrupted():
                _write(whole, trees, snapshot.progress)
                for step in sorted({*before, int(whole.name)})[:-max_to_keep]:
                    with suppress(OSError):  # on Windows somebody may be reading it: it goes with the next
                        (directory / str(step)).rename(directory / f"partial-{step}")  # only what is whole has a number
                _sweep(directory)
        except Exception as error:
            _sweep(directory)
            problem = error
    if not distributed.broadcast_from_main(problem is None):
        reason = "process 0 could not write it" if problem is None else _reason(problem)
        good = f"; the one before it, {directory / str(before[-1])}, is as it was" if before else ""
        raise InputError(f"the checkpoint {whole} cannot be written: {reason}{good}") from problem


def restore_snapshot(folder: Path, target: tuple[TrainState, tuple[Any, Any]], mesh: Mesh | None = None) -> Snapshot:
    """Read the newest snapshot back.

    Args:
        folder: as given to :func:`save_checkpoint`. A training that goes on may save into it meanwhile.
        target: the train state and the best params and state, or their shapes.
        mesh: of devices that each get all of it; by default it goes to the first device.

    Raises:
        InputError: no checkpoint; one of another model, with every difference; one that cannot be read; or a damaged
            one, with the newest that is whole.
    """

    def read(path: Path) -> Snapshot:
        with _whole(path) as files:
            trees = _read_trees(path, files, _trees(*target), mesh)
            progress = _read_progress(path, files["progress.json"])
        return Snapshot(
            TrainState(**trees["train_state"]),
            (trees["best_variables"]["params"], trees["best_variables"]["state"]),
            progress,
        )

    return _newest(folder, read)


def restore_best(folder: Path, target: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read the params and the state of the best epoch back.

    Args:
        folder: as given to :func:`save_checkpoint`. A training that goes on may save into it meanwhile.
        target: params and state of the same structure, or their shapes from ``jax.eval_shape(model.init, …)``.

    Raises:
        InputError: as :func:`restore_snapshot`.
    """

    def read(path: Path) -> tuple[Any, Any]:
        with _whole(path) as files:
            best = _read_trees(path, files, {"best_variables": _named(target)})["best_variables"]
        return best["params"], best["state"]

    return _newest(folder, read)


def all_steps(folder: Path) -> list[int]:
    """After how many steps the whole checkpoints in a folder were taken, the oldest first.

    Raises:
        InputError: the folder cannot be read, or is no folder.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"the checkpoints in {folder} cannot be read: {error.strerror or error}") from None
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def read_extra(folder: Path) -> tuple[int, Any] | None:
    """The steps of the newest snapshot, by its folder's name, and its ``progress.extra``.

    Args:
        folder: as given to :func:`save_checkpoint`.

    Returns:
        None where there is no snapshot. A damaged one is passed over: loading it tells of the damage.
    """
    for step in reversed(all_steps(folder)):
        with suppress(InputError, FileNotFoundError):  # damaged, or removed by the training that goes on
            path = folder / str(step) / "progress.json"
            content, sums = read_bytes(path, MAX_JSON_BYTES), read_json(path.with_name("manifest.json"))
            if isinstance(sums, dict) and sums.get(path.name) == hashlib.sha256(content).hexdigest():
                return step, from_dict(content, dict[str, Any], name=str(path)).get("extra")
    return None


def _trees(train_state: Any, best: Any) -> dict[str, dict[str, Any]]:
    return {"train_state": train_state._asdict(), "best_variables": _named(best)}


def _named(network: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("params", "state"), network, strict=True))


def _here(leaf: Any) -> Any:
    """An array all of which this process has. Several processes make it together, where each has a piece."""
    spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated
    return distributed.process_allgather(leaf) if spread else leaf


def _write(whole: Path, trees: dict[str, Any], progress: TrainProgress) -> None:
    folder, half = whole.parent, whole.with_name(f"partial-{whole.name}")
    if not folder.exists():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    _sweep(folder)
    half.mkdir()
    for name, tree in trees.items():
        with writing(half / f"{name}.npz") as file:
            write_arrays(file, tree)
    history = write_history(folder, progress.history)
    write_json(half / "progress.json", progress._replace(history=()).to_dict() | {"history": history})
    sums = {}
    for name in FILES:
        with open_file(half / name) as file:
            sums[name] = _sha256(file)
    write_json(half / "manifest.json", sums)
    os.replace(half, whole)
    sync_folder(folder)


def _newest(folder: Path, read: Callable[[Path], T]) -> T:
    """What is read of the newest snapshot; if it is removed meanwhile, of the one that is then the newest."""
    for _ in range(TRIES):
        steps = all_steps(folder)
        if not steps:
            raise InputError(f"{folder.parent} has no checkpoint: did its training stop before the first epoch ended?")
        newest, *older = [folder / str(step) for step in reversed(steps)]
        try:
            return read(newest)
        except _DamageError as damage:
            if newest.exists():
                raise InputError(f"the checkpoint {newest} is damaged ({damage}): {_advice(newest, older)}") from None
    raise InputError(f"the checkpoints in {folder} are replaced faster than they can be read: try again")


def _advice(newest: Path, older: list[Path]) -> str:
    bad = [newest]
    for path in older:
        try:
            with _whole(path) as files:
                _read_progress(path, files["progress.json"])
            return f"delete {' and '.join(map(str, bad))}, and {path}, which is whole, is used"
        except _DamageError:
            bad.append(path)
    return "there is no other that is whole"


@contextmanager
def _whole(path: Path) -> Iterator[dict[str, BinaryIO]]:
    """The files of a snapshot, open, and as they were written. They can be read though the snapshot is removed."""
    with ExitStack() as stack:
        files = {}
        with _damage_told():
            sums = from_dict(read_bytes(path / "manifest.json", MAX_JSON_BYTES), dict[str, str], name="manifest.json")
        if "position.json" in sums:
            raise InputError(f"the checkpoint {path} was written by an older jaxconv: train again")
        with _damage_told():
            for name in FILES:
                if name not in sums:
                    raise _DamageError(f"manifest.json does not list {name}")
                files[name] = stack.enter_context(open_file(path / name))
                if _sha256(files[name]) != sums[name]:
                    raise _DamageError(f"{name} has changed")
        yield files


def _read_trees(
    path: Path, files: dict[str, BinaryIO], wanted: dict[str, Any], mesh: Mesh | None = None
) -> dict[str, Any]:
    """Trees of a snapshot, on this machine's devices, whatever it was written from: trained on a GPU, say."""
    arrays, differing = {}, []
    for name, tree in wanted.items():
        with _damage_told(f"{name}.npz: "):
            arrays[name] = read_arrays(files[f"{name}.npz"])
        differing += tree_differences(arrays[name], tree)
    if differing:
        raise InputError(f"the checkpoint {path} is of another model: {'; '.join(differing)}")
    trees = {
        name: jax.tree.unflatten(jax.tree.structure(tree), [arrays[name][place] for place in paths(tree)])
        for name, tree in wanted.items()
    }
    return distributed.replicate(mesh, trees) if mesh else jax.device_put(trees, jax.local_devices()[0])


def _read_progress(path: Path, file: BinaryIO) -> TrainProgress:
    with _damage_told("progress.json: "):
        facts = from_dict(file.read(), dict[str, Any], name="it")
        part = msgspec.convert(facts.pop("history", None), Part)
        progress = TrainProgress.from_dict(facts)
    with _damage_told():
        return progress._replace(history=read_history(path.parent, part))


@contextmanager
def _damage_told(where: str = "") -> Iterator[None]:
    """Make what goes wrong with a file a :class:`_DamageError`; but what may not be read, is not damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise _DamageError(f"{where}{Path(error.filename).name} is missing") from None
    except (InputError, msgspec.ValidationError) as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise _DamageError(f"{where}{error}") from None
    except OSError as error:
        raise _DamageError(f"{where}{_reason(error)}") from None


def _sha256(file: Any) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _sweep(folder: Path) -> None:
    """Remove what is left of a write that was killed or failed, and of checkpoints that are no longer kept."""
    for half in folder.glob("partial-*"):
        if half.is_dir() and not half.is_symlink():
            shutil.rmtree(half, ignore_errors=True)
        else:
            with suppress(OSError):
                half.unlink()


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or str(cause).strip() or type(cause).__name__
    return text.splitlines()[0][:300]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a write, so that the epoch that was trained is saved."""
    here = threading.current_thread() is threading.main_thread()  # no signal is delivered anywhere else
    if not here or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # or whoever started us will have none
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
