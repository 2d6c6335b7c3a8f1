"""How far training has come, in the terminal."""

import time
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxconv.train.batches import Plan
from jaxconv.train.diagnostics import dead_layer
from jaxconv.train.snapshot import Position
from jaxconv.utils import terminal
from jaxconv.utils.text import printable


class Progress:
    """A bar over all steps with loss, accuracy and images a second, and a line for every epoch.

    It shows the numbers of the chunk *before* the last one, which are there already: looking at the newest would
    make the host wait for the device.
    """

    def __init__(self, epochs: int, cut: Plan, at: Position, *, show: bool) -> None:
        self.epochs, self.cut, self.show = epochs, cut, show
        self.done = at.epoch * cut.chunks + at.chunk
        self.looked: float | None = None  # when the last chunk of this process was
        self.dead = {name for record in at.history for name in record.get("dead", ())}  # that was told

    def __enter__(self) -> "Progress":
        if self.show:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

            measured = TextColumn("{task.fields[measured]}", markup=False)
            self.bar = terminal.progress(BarColumn(), measured, TimeRemainingColumn())
            total = self.epochs * self.cut.chunks
            self.task = self.bar.add_task("compiling", total=total, completed=self.done, measured="")
            self.bar.start()
            self.headed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.show:
            self.bar.stop()

    def chunk(self, at: Position) -> None:
        """One more chunk is under way."""
        if not self.show:
            return
        self.bar.update(self.task, completed=at.epoch * self.cut.chunks + at.chunk)
        self.bar.update(self.task, description=f"epoch {at.epoch + 1}/{self.epochs}")
        before, self.looked = self.looked, time.perf_counter()
        if len(at.measured) < 2 or before is None:
            return
        sums = np.asarray(jax.device_get(at.measured[-2])).reshape(3, -1)  # a column for each network
        loss, correct, examples = sums.sum(axis=1)
        rate = self.cut.chunk * self.cut.batch_size * sums.shape[1] / (self.looked - before)
        measured = f"loss {loss / examples:.3f}  accuracy {correct / examples:.3f}  {rate:,.0f} images/s"
        self.bar.update(self.task, measured=measured)

    def epoch(self, record: dict[str, Any], is_best: bool) -> None:
        """A line that stays, under headings."""
        if not self.show:
            return
        if not self.headed:
            self._say("  epoch      loss  accuracy    validation loss  accuracy    images/s")
            self.headed = True
        self._say(
            f"{record['epoch']:>3}/{self.epochs:<3} {record['loss']:>9.4f} {record['accuracy']:>9.4f} "
            f"{record['val_loss']:>18.4f} {record['val_accuracy']:>9.4f} {record['images_per_second']:>11,.0f}"
            f"{'  best' if is_best else ''}"
        )
        for name in record.get("dead", ()):
            if name not in self.dead:
                self._say(f"        {dead_layer(name)}")
        self.dead |= set(record.get("dead", ()))

    def _say(self, line: str) -> None:
        self.bar.console.print(printable(line), soft_wrap=True)
