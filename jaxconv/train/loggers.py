"""Loggers of training: a progress bar in the terminal, and curves for TensorBoard."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.train.diagnostics import dead_layer
from jaxconv.train.loaders import EpochPlan
from jaxconv.train.snapshots import TrainProgress
from jaxconv.train.tasks import CLASSIFICATION, MetricSums, Task, reported
from jaxconv.utils.files import make_folder, refuse_link, write_errors
from jaxconv.utils.progress import progress_bar
from jaxconv.utils.terminal import printable


class Progress:
    """A bar over all steps with loss, accuracy and images a second, and a line for every epoch.

    It shows the numbers of the chunk *before* the last one, which are there already: looking at the newest would
    make the host wait for the device.
    """

    def __init__(
        self, epochs: int, cut: EpochPlan, at: TrainProgress, *, show: bool, task: Task = CLASSIFICATION
    ) -> None:
        self.epochs, self.cut, self.show, self.objective = epochs, cut, show, task
        self.done = at.epoch * cut.executions + at.execution
        self.looked: float | None = None  # when the last chunk of this process was
        self.dead = {name for record in at.history for name in record.get("dead_layers", ())}  # that was told

    def __enter__(self) -> "Progress":
        if self.show:
            self.bar = progress_bar("measured", "remaining")
            total = self.epochs * self.cut.executions
            self.task = self.bar.add_task("compiling", total=total, completed=self.done, measured="")
            self.bar.start()
            self.headed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.show:
            self.bar.stop()

    def chunk(self, at: TrainProgress) -> None:
        """One more chunk is under way."""
        if not self.show:
            return
        self.bar.update(self.task, completed=at.epoch * self.cut.executions + at.execution)
        self.bar.update(self.task, description=f"epoch {at.epoch + 1}/{self.epochs}")
        before, self.looked = self.looked, time.perf_counter()
        if len(at.metric_sums) < 2 or before is None:
            return
        sums = jax.device_get(at.metric_sums[-2])
        networks = np.size(sums["count"])
        if np.ndim(sums["count"]):
            sums = {name: np.sum(value, axis=0) for name, value in sums.items()}
        numbers = reported(self.objective, MetricSums(sums, sums.pop("count")))
        rate = self.cut.steps_per_execution * self.cut.batch_size * networks / (self.looked - before)
        shown = "".join(f"{name} {value:.3f}  " for name, value in numbers.items())
        measured = f"{shown}{rate:,.0f} images/s"
        self.bar.update(self.task, measured=measured)

    def epoch(self, record: dict[str, Any], is_best: bool) -> None:
        """A line that stays, under headings."""
        if not self.show:
            return
        names = [name for name in record if f"val_{name}" in record and name != "loss"]
        if not self.headed:
            heads = "".join(f" {name:>9}" for name in names)
            self._say(f"  epoch      loss{heads}    validation loss{heads}    images/s")
            self.headed = True
        self._say(
            f"{record['epoch']:>3}/{self.epochs:<3} {record['loss']:>9.4f}{_columns(record, names)} "
            f"{record['val_loss']:>18.4f}{_columns(record, [f'val_{name}' for name in names])} "
            f"{record['images_per_second']:>11,.0f}{'  best' if is_best else ''}"
        )
        for name in record.get("dead_layers", ()):
            if name not in self.dead:
                self._say(f"        {dead_layer(name)}")
        self.dead |= set(record.get("dead_layers", ()))

    def _say(self, line: str) -> None:
        self.bar.console.print(printable(line), soft_wrap=True)


def _columns(record: Mapping[str, Any], names: list[str]) -> str:
    return "".join(f" {record[name]:>9.4f}" for name in names)


class TensorBoardWriter:
    """Writes the records of :func:`jaxconv.train.fit` where TensorBoard finds them: ``tensorboard --logdir FOLDER``.

    The tags are ``train/loss``, ``validation/loss`` (the record's ``val_loss``), and so on for every number; the steps
    are the epochs. What is written is in the file when :meth:`write` returns, so that a killed run loses nothing.

    Args:
        folder: made if it is not there.
        initial_epoch: the epoch that comes next. TensorBoard hides what the folder holds of this epoch and later ones,
            so that a resumed run does not show them twice.

    Raises:
        InputError: no tensorboardX, or a folder that cannot be written.
    """

    def __init__(self, folder: Path, initial_epoch: int = 1) -> None:
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
            self._write(step=initial_epoch, session_log=SessionLog(status=SessionLog.START))

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

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _tag(name: str) -> str:
    return f"validation/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
