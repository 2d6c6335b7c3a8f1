"""Parameters on disk, by orbax: written beside, renamed when whole, so a crash leaves the last good checkpoint."""

from pathlib import Path
from typing import Any

from jaxconv.errors import InputError


def save_checkpoint(folder: Path, epoch: int, params: Any, state: Any) -> None:
    """Write params and state into ``folder/<epoch>``, then remove the checkpoint before it."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        manager.save(epoch, args=ocp.args.StandardSave({"params": params, "state": state}))


def load_checkpoint(folder: Path, like: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read params and state back.

    Args:
        folder: as given to :func:`save_checkpoint`.
        like: params and state of the same structure, or their shapes from ``jax.eval_shape(model.init, …)``.

    Raises:
        InputError: no checkpoint, a damaged one, or one of another model.
    """
    import orbax.checkpoint as ocp

    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    if not steps:
        raise InputError(f"{folder.parent} has no checkpoint: did its training stop before the first epoch ended?")
    params, state = like
    with ocp.CheckpointManager(folder.absolute()) as manager:
        try:
            tree = manager.restore(steps[-1], args=ocp.args.StandardRestore({"params": params, "state": state}))
        except Exception as error:  # orbax raises what its layers below raise: ValueError, KeyError, FileNotFoundError…
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise InputError(
                f"the checkpoint {folder / str(steps[-1])} cannot be read, or is of another model: {reason}"
            ) from error
    return tree["params"], tree["state"]
