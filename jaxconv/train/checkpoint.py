"""Parameters on disk, by orbax: written beside, renamed when whole, so a crash leaves the last good checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxconv.errors import InputError


def save_checkpoint(folder: Path, epoch: int, params: Any, state: Any) -> None:
    """Write params and state into ``folder/<epoch>``, then remove the checkpoint before it."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with _uninterrupted(), ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        manager.save(epoch, args=ocp.args.StandardSave({"params": params, "state": state}))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the few milliseconds of a write: orbax's threads complain when they are left alone."""
    if threading.current_thread() is not threading.main_thread():  # no signal is delivered here
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


def load_checkpoint(folder: Path, like: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read params and state back.

    Args:
        folder: as given to :func:`save_checkpoint`.
        like: params and state of the same structure, or their shapes from ``jax.eval_shape(model.init, …)``.

    Raises:
        InputError: no checkpoint, a damaged one, or one of another model, with every difference.
    """
    import orbax.checkpoint as ocp

    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    if not steps:
        raise InputError(f"{folder.parent} has no checkpoint: did its training stop before the first epoch ended?")
    newest = folder / str(steps[-1])
    # Onto this machine's device, whatever the checkpoint was written from: trained on a GPU, used on a laptop.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        dict(zip(("params", "state"), like, strict=True)),
    )
    with ocp.CheckpointManager(folder.absolute(), item_handlers=ocp.StandardCheckpointHandler()) as manager:
        try:
            found = manager.item_metadata(steps[-1])
            if found is None:
                raise FileNotFoundError("its index cannot be read")
            if not (differing := _differences(found, wanted)):
                tree = manager.restore(steps[-1], args=ocp.args.StandardRestore(wanted))
                return tree["params"], tree["state"]
        except Exception as error:  # whatever the layers below orbax raise: ValueError, KeyError, FileNotFoundError, …
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"the checkpoint {newest} is damaged: {reason}") from error
    raise InputError(f"the checkpoint {newest} is of another model: {'; '.join(differing)}")


def _differences(found: Any, wanted: Any) -> list[str]:
    """Every path that is in one tree only, or of another shape."""
    here, there = _shapes(found), _shapes(wanted)
    return [
        f"{path} is {here.get(path, 'missing')} where {there.get(path, 'nothing')} is wanted"
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
