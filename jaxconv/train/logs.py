"""The records of the epochs as curves for TensorBoard."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.utils.files import make_folder, refuse_link, write_errors


class TensorBoard:
    """Writes the records of :func:`jaxconv.train.fit` where TensorBoard finds them: ``tensorboard --logdir FOLDER``.

    The tags are ``train/loss``, ``validation/loss`` (the record's ``val_loss``), and so on for every number; the steps
    are the epochs. What is written is in the file when :meth:`write` returns, so that a killed run loses nothing.

    Args:
        folder: made if it is not there.
        first: the epoch that comes next. TensorBoard hides what the folder holds of this epoch and later ones, so that
            a resumed run does not show them twice.

    Raises:
        InputError: no tensorboardX, or a folder that cannot be written.
    """

    def __init__(self, folder: Path, first: int = 1) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise InputError('TensorBoard needs tensorboardX: pip install "jaxconv[tensorboard]"') from None
        self._folder, self._event = folder, Event
        refuse_link(folder)
        make_folder(folder)
        with write_errors(folder):
            # Not SummaryWriter: its thread writes later, and its files of one second have one name.
            self._events = EventsWriter(str(folder / "events"), f".{len(list(folder.iterdir())):04d}")
            self._write(step=first, session_log=SessionLog(status=SessionLog.START))

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of one epoch, at the step ``record["epoch"]``."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=_tag(name), simple_value=float(value))
            for name, value in record.items()
            if checks.is_number(value) and name not in ("epoch", "step")
        ]
        with write_errors(self._folder):
            self._write(step=record["epoch"], summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), **content))
        self._events.flush()

    def close(self) -> None:
        """Close the file; nothing can be written after it."""
        self._events.close()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _tag(name: str) -> str:
    return f"validation/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
