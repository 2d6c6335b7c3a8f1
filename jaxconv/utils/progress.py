"""Progress bars in the terminal, and chunked processing of many items that shows one."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxconv.utils.terminal import console, printable

if TYPE_CHECKING:
    import rich.progress

CHUNK = 512  # items per call
QUIET_SECONDS = 2.0  # no bar for work that is faster

T = TypeVar("T")


def progress_bar(*columns: str, stderr: bool = False, disable: bool = False) -> "rich.progress.Progress":
    """Create a transient rich progress bar after a description; texts are not parsed as markup.

    Args:
        columns: columns after the bar: ``"percent"``, ``"elapsed"``, ``"remaining"``, ``"bytes"``, ``"speed"``, or the
            name of a field of the task.
        stderr: write to stderr instead of stdout.
        disable: do not show the bar.

    >>> with progress_bar("loss", "remaining", disable=True) as bar:
    ...     task = bar.add_task("epoch 1/3", total=3, loss="0.693")
    ...     bar.update(task, advance=1, loss="0.512")
    """
    from rich import progress as rich_progress

    predefined = {
        "percent": rich_progress.TaskProgressColumn,
        "elapsed": rich_progress.TimeElapsedColumn,
        "remaining": rich_progress.TimeRemainingColumn,
        "bytes": rich_progress.DownloadColumn,
        "speed": rich_progress.TransferSpeedColumn,
    }

    def text(field: str) -> rich_progress.ProgressColumn:
        return rich_progress.TextColumn(f"{{task.{field}}}", markup=False)

    extra = [predefined[name]() if name in predefined else text(f"fields[{name}]") for name in columns]
    all_columns = [text("description"), rich_progress.BarColumn(), *extra]
    return rich_progress.Progress(*all_columns, console=console(stderr=stderr), transient=True, disable=disable)


def map_chunks(function: Callable[[Any], T], items: Sequence[Any] | Any, title: str) -> Iterator[T]:
    """Yield ``function(chunk)`` for consecutive chunks of ``items``, with a progress bar at a terminal.

    >>> list(map_chunks(sum, range(1000), "adding"))
    [130816, 368684]
    """
    start_time, is_terminal = time.monotonic(), console(stderr=True).is_terminal
    with contextlib.ExitStack() as stack:
        bar, task = None, None
        for start in range(0, len(items), CHUNK):
            yield function(items[start : start + CHUNK])
            if bar is None and is_terminal and time.monotonic() - start_time > QUIET_SECONDS:
                bar = stack.enter_context(progress_bar("percent", "remaining", stderr=True))
                task = bar.add_task(printable(title), total=len(items))
            if bar is not None and task is not None:
                bar.update(task, completed=start + CHUNK)
