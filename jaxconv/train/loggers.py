"""Loggers of training: a progress bar in the terminal, and TensorBoard event files."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.train.diagnostics import dead_layer_message
from jaxconv.train.loaders import EpochPlan
from jaxconv.train.snapshots import TrainProgress
from jaxconv.train.tasks import CLASSIFICATION, MetricSums, Task, reported
from jaxconv.utils.files import make_folder, refuse_link, write_errors
from jaxconv.utils.progress import progress_bar
from jaxconv.utils.terminal import printable


class Progress:
    """Progress bar over all steps with loss, metrics and images per second, and one printed line per epoch.

    It displays the metrics of the *previous* execution, which are available: reading those of the last one would make
    the host wait for the device.
    """

    def __init__(
        self, epochs: int, plan: EpochPlan, progress: TrainProgress, *, show: bool, task: Task = CLASSIFICATION
    ) -> None:
        self.epochs, self.plan, self.show, self.task = epochs, plan, show, task
        self.completed = progress.epoch * plan.executions + progress.execution
        self.last_time: float | None = None  # of the last execution of this process
        self.dead_layers = {name for record in progress.history for name in record.get("dead_layers", ())}

    def __enter__(self) -> "Progress":
        if self.show:
            self.bar = progress_bar("measured", "remaining")
            total = self.epochs * self.plan.executions
            self.bar_task = self.bar.add_task("compiling", total=total, completed=self.completed, measured="")
            self.bar.start()
            self.has_header = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.show:
            self.bar.stop()

    def execution(self, progress: TrainProgress) -> None:
        """Advance the bar when an execution has been started."""
        if not self.show:
            return
        self.bar.update(self.bar_task, completed=progress.epoch * self.plan.executions + progress.execution)
        self.bar.update(self.bar_task, description=f"epoch {progress.epoch + 1}/{self.epochs}")
        previous_time, self.last_time = self.last_time, time.perf_counter()
        if len(progress.metric_sums) < 2 or previous_time is None:
            return
        sums = jax.device_get(progress.metric_sums[-2])
        num_members = np.size(sums["count"])
        if np.ndim(sums["count"]):
            sums = {name: np.sum(value, axis=0) for name, value in sums.items()}
        values = reported(self.task, MetricSums(sums, sums.pop("count")))
        num_images = self.plan.steps_per_execution * self.plan.batch_size * num_members
        rate = num_images / (self.last_time - previous_time)
        metrics = "".join(f"{name} {value:.3f}  " for name, value in values.items())
        self.bar.update(self.bar_task, measured=f"{metrics}{rate:,.0f} images/s")

    def epoch(self, record: dict[str, Any], is_best: bool) -> None:
        """Print the line of an epoch; the first one prints the header too."""
        if not self.show:
            return
        names = [name for name in record if f"val_{name}" in record and name != "loss"]
        if not self.has_header:
            headings = "".join(f" {name:>9}" for name in names)
            self._print(f"  epoch      loss{headings}    validation loss{headings}    images/s")
            self.has_header = True
        self._print(
            f"{record['epoch']:>3}/{self.epochs:<3} {record['loss']:>9.4f}{_columns(record, names)} "
            f"{record['val_loss']:>18.4f}{_columns(record, [f'val_{name}' for name in names])} "
            f"{record['images_per_second']:>11,.0f}{'  best' if is_best else ''}"
        )
        for name in record.get("dead_layers", ()):
            if name not in self.dead_layers:
                self._print(f"        {dead_layer_message(name)}")
        self.dead_layers |= set(record.get("dead_layers", ()))

    def _print(self, line: str) -> None:
        self.bar.console.print(printable(line), soft_wrap=True)


def _columns(record: Mapping[str, Any], names: list[str]) -> str:
    return "".join(f" {record[name]:>9.4f}" for name in names)


class TensorBoardWriter:
    """Write the records of :func:`jaxconv.train.fit` as TensorBoard events: ``tensorboard --logdir FOLDER``.

    The tags are ``train/loss``, ``validation/loss`` (the record's ``val_loss``), and so on for every number; the steps
    are the epochs. :meth:`write` flushes the file before it returns, so a killed run loses nothing.

    Args:
        folder: folder of the event files; created if missing.
        initial_epoch: number of the next epoch. TensorBoard hides existing events of this epoch and later ones, so a
            resumed run does not display them twice.

    Raises:
        InputError: if tensorboardX is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, initial_epoch: int = 1) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise InputError('TensorBoard requires tensorboardX: pip install "jaxconv[tensorboard]"') from None
        self._folder, self._event = folder, Event
        refuse_link(folder)
        make_folder(folder)
        with write_errors(folder):
            # SummaryWriter writes later in a thread, and two writers opened within a second get the same file name.
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
        """Close the file; it cannot be written to afterwards."""
        self._events.close()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _tag(name: str) -> str:
    return f"validation/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
