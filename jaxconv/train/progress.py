"""How far training has come, in the terminal."""

import time
from types import TracebackType
from typing import Any

from jaxconv.train.step import Metrics


class Progress:
    """A bar over all steps with loss, accuracy and images a second, and a line for every epoch.

    It shows the numbers of the step *before* the last one, which are there already: looking at the newest would
    make the host wait for the device.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, *, show: bool) -> None:
        self.epochs, self.steps, self.batch_size, self.show = epochs, steps, batch_size, show

    def __enter__(self) -> "Progress":
        if self.show:
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[measured]}"),
                progress.TimeRemainingColumn(),
                transient=True,
            )
            self.task = self.bar.add_task("compiling", total=self.epochs * self.steps, measured="")
            self.bar.start()
            self.looked = time.perf_counter()
            self.since = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.show:
            self.bar.stop()

    def step(self, epoch: int, metrics: list[Metrics]) -> None:
        """One more step done; look at the numbers five times a second at most."""
        if not self.show:
            return
        self.bar.advance(self.task)
        self.since += 1
        seconds = time.perf_counter() - self.looked
        if seconds < 0.2 or len(metrics) < 2:
            return
        loss, correct, examples = map(float, metrics[-2])
        rate = self.since * self.batch_size / seconds
        self.looked, self.since = time.perf_counter(), 0
        measured = f"loss {loss / examples:.3f}  accuracy {correct / examples:.3f}  {rate:,.0f} images/s"
        self.bar.update(self.task, description=f"epoch {epoch}/{self.epochs}", measured=measured)

    def epoch(self, record: dict[str, Any], is_best: bool) -> None:
        """A line that stays, under headings."""
        if not self.show:
            return
        if record["epoch"] == 1:
            self._say("  epoch      loss  accuracy    validation loss  accuracy    images/s")
        self._say(
            f"{record['epoch']:>3}/{self.epochs:<3} {record['loss']:>9.4f} {record['accuracy']:>9.4f} "
            f"{record['val_loss']:>18.4f} {record['val_accuracy']:>9.4f} {record['images_per_second']:>11,.0f}"
            f"{'  best' if is_best else ''}"
        )

    def _say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, soft_wrap=True)
