"""Snapshots on disk, by orbax: written beside, renamed when whole, so a crash leaves the last good one.

checkpoint/<steps made>/
    train            the train state: with it, training goes on
    best             params and state of the best epoch: for everything else
    position.json    where in the run it was taken
    manifest.json    the SHA-256 of every file, without which none is read
"""

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxconv import devices
from jaxconv.errors import InputError
from jaxconv.ops import checks
from jaxconv.train.snapshot import Position, Snapshot, differences
from jaxconv.train.state import TrainState
from jaxconv.utils.files import MAX_JSON_BYTES, from_json, read_bytes, read_json

if TYPE_CHECKING:
    from orbax.checkpoint import Checkpointer

ROOM = 2**18  # bytes for all that is not an array


def save_checkpoint(folder: Path, snapshot: Snapshot, *, keep: int = 2) -> None:
    """Write a snapshot into ``folder/<steps>``, then remove those that are no longer among the last ``keep``.

    Several processes do it together: each calls this, and the first writes what is the same in all.

    Raises:
        InputError: it cannot be written, and those before it are as they were; or a ``keep`` below 1.
    """
    import orbax.checkpoint as ocp

    checks.whole("save_checkpoint", 1, keep=keep)
    before, whole = saved_steps(folder), folder / str(int(snapshot.train_state.step.max()))
    half, position = folder / f"partial-{whole.name}", snapshot.position.as_json()
    trees = _trees(snapshot.train_state, snapshot.best)
    try:
        with _uninterrupted(), _checkpointer() as checkpointer:
            _sweep(folder)
            _make_room(half, trees)
            for name, tree in trees.items():
                checkpointer.save(half.absolute() / name, args=ocp.args.StandardSave(tree))
            if devices.first():
                (half / "position.json").write_text(json.dumps(position))
                (half / "manifest.json").write_text(json.dumps(_sums(half), indent=0))
                os.replace(half, whole)
                for step in sorted([*before, int(whole.name)])[:-keep]:
                    (folder / str(step)).rename(folder / f"partial-{step}")  # only what is whole has a number
                _sweep(folder)
    except Exception as error:  # OSError, and what the layers below orbax make of one
        _sweep(folder)
        good = f"; the one before it, {folder / str(before[-1])}, is as it was" if before else ""
        raise InputError(f"the checkpoint {whole} cannot be written: {_reason(error)}{good}") from error


def load_snapshot(folder: Path, like: tuple[TrainState, tuple[Any, Any]], mesh: Mesh | None = None) -> Snapshot:
    """Read the newest snapshot back.

    Args:
        folder: as given to :func:`save_checkpoint`.
        like: the train state and the best params and state, or their shapes.
        mesh: of devices that each get all of it; by default it goes to the first device.

    Raises:
        InputError: no checkpoint; one of another model, with every difference; or a damaged one, with the newest
            that is whole.
    """
    found, position = _load(folder, _trees(*like), mesh)
    best = found["best"]["params"], found["best"]["state"]
    return Snapshot(TrainState(**found["train"]), best, Position.from_json(position))


def load_checkpoint(folder: Path, like: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read the params and the state of the best epoch back.

    Args:
        folder: as given to :func:`save_checkpoint`.
        like: params and state of the same structure, or their shapes from ``jax.eval_shape(model.init, …)``.

    Raises:
        InputError: as :func:`load_snapshot`.
    """
    best = _load(folder, {"best": _named(like)}, None)[0]["best"]
    return best["params"], best["state"]


def read_extra(folder: Path) -> tuple[int, Any] | None:
    """The steps of the newest snapshot, by its folder's name, and its ``position.extra``.

    Args:
        folder: as given to :func:`save_checkpoint`.

    Returns:
        None where there is no snapshot. A damaged one is passed over: loading it tells of the damage.
    """
    for step in reversed(saved_steps(folder)):
        with suppress(InputError, FileNotFoundError):  # damaged, or removed by the training that goes on
            position = folder / str(step) / "position.json"
            content, sums = read_bytes(position, MAX_JSON_BYTES), read_json(position.with_name("manifest.json"))
            if isinstance(sums, dict) and sums.get(position.name) == hashlib.sha256(content).hexdigest():
                return step, from_json(content, dict[str, Any], name=str(position)).get("extra")
    return None


def _trees(train_state: Any, best: Any) -> dict[str, dict[str, Any]]:
    return {"train": train_state._asdict(), "best": _named(best)}


def _named(network: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("params", "state"), network, strict=True))


def _load(folder: Path, wanted: dict[str, Any], mesh: Mesh | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest checkpoint's trees of these names and its position; if it is damaged, say which one is not."""
    steps = saved_steps(folder)
    if not steps:
        raise InputError(f"{folder.parent} has no checkpoint: did its training stop before the first epoch ended?")
    # Onto this machine's devices, whatever it was written from: trained on a GPU, used on a laptop.
    sharding = NamedSharding(mesh, PartitionSpec()) if mesh else SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), wanted)
    newest, *older = [folder / str(step) for step in reversed(steps)]
    if not (fault := _damage(newest)):
        return _read(newest, wanted)
    bad = [newest]
    for path in older:
        if not _damage(path):
            good = f"delete {' and '.join(map(str, bad))}, and {path}, which is whole, is used"
            break
        bad.append(path)
    else:
        good = "there is no other that is whole"
    raise InputError(f"the checkpoint {newest} is damaged ({fault}): {good}")


def _read(path: Path, wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    import orbax.checkpoint as ocp

    trees, differing = {}, []
    with _checkpointer() as checkpointer:
        for name, tree in wanted.items():
            differing += differences(checkpointer.metadata(path.absolute() / name).item_metadata.tree, tree)
        if differing:
            raise InputError(f"the checkpoint {path} is of another model: {'; '.join(differing)}")
        for name, tree in wanted.items():
            trees[name] = checkpointer.restore(path.absolute() / name, args=ocp.args.StandardRestore(tree))
    return trees, json.loads((path / "position.json").read_text())


def _checkpointer() -> "Checkpointer":
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _sums(path: Path) -> dict[str, str]:
    """The SHA-256 of every file below."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _damage(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written."""
    try:
        written = json.loads((path / "manifest.json").read_bytes())
        there = _sums(path)
    except (OSError, ValueError) as error:
        return f"manifest.json: {_reason(error)}"
    if not isinstance(written, dict):
        return "manifest.json is no list of files"
    for name, digest in written.items():
        if there.get(name) != digest:
            return f"{name} {'has changed' if name in there else 'is missing'}"
    return None


def saved_steps(folder: Path) -> list[int]:
    """After how many steps the whole checkpoints in a folder were taken, the oldest first."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def _make_room(half: Path, trees: Any) -> None:
    """Make the folder, and see that the disk has room: orbax's threads say that it has none in pages of tracebacks."""
    half.mkdir(parents=True, exist_ok=True)
    if devices.first() and hasattr(os, "posix_fallocate"):  # macOS has not
        with tempfile.TemporaryFile(dir=half) as file:
            os.posix_fallocate(file.fileno(), 0, ROOM + sum(leaf.nbytes for leaf in jax.tree.leaves(trees)))


def _sweep(folder: Path) -> None:
    """Remove what is left of a write that was killed or failed, and of checkpoints that are no longer kept."""
    if devices.first():
        for half in folder.glob("partial-*"):
            shutil.rmtree(half, ignore_errors=True)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a write: orbax's threads complain when they are left alone."""
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
