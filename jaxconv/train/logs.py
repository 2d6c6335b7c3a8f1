"""The records of the epochs on disk: a line of JSON each, and as curves for TensorBoard."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxconv.errors import InputError
from jaxconv.ops import checks


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to the end of a file, as one line of JSON.

    Raises:
        InputError: a number that JSON has no word for, such as nan, or a file that cannot be written.
    """
    line = _line(record)
    with _writing(path), path.open("a", encoding="utf-8") as lines:
        lines.write(line)


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Make a file hold these records and no other, a line each: a resumed run forgets the epochs that it does again.

    Written beside and renamed, so that the file is whole, or is what it was.

    Raises:
        InputError: as :func:`append_jsonl`.
    """
    lines = [_line(record) for record in records]
    partial = path.with_name(f"{path.name}.partial")
    with _writing(path):
        try:
            partial.write_text("".join(lines), encoding="utf-8")
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _line(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"the record {record} does not go into JSON: {error}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


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
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
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
        with _writing(self._folder):
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
