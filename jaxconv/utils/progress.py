"""Progress bars in the terminal, and long work on many items that shows one."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxconv.utils.terminal import console, printable

if TYPE_CHECKING:
    import rich.progress

CHUNK = 512
QUIET_SECONDS = 2.0  # before a bar is worth looking at

T = TypeVar("T")


def progress_bar(*columns: str, stderr: bool = False, disable: bool = False) -> "rich.progress.Progress":
    """Create a bar of rich's with a description before it, which is no markup; it goes away when it is done.

    Args:
        columns: texts after the bar: ``"percent"``, ``"elapsed"``, ``"remaining"``, ``"bytes"``, ``"speed"``, or the
            name of a field of the task, whose value is no markup either.
        stderr: show it there; by default on stdout.
        disable: do not show it.

    >>> with progress_bar("loss", "remaining", disable=True) as bar:
    ...     task = bar.add_task("epoch 1/3", total=3, loss="0.693")
    ...     bar.update(task, advance=1, loss="0.512")
    """
    from rich import progress as rich_progress

    known = {
        "percent": rich_progress.TaskProgressColumn,
        "elapsed": rich_progress.TimeElapsedColumn,
        "remaining": rich_progress.TimeRemainingColumn,
        "bytes": rich_progress.DownloadColumn,
        "speed": rich_progress.TransferSpeedColumn,
    }

    def text(field: str) -> rich_progress.ProgressColumn:
        return rich_progress.TextColumn(f"{{task.{field}}}", markup=False)

    after = [known[name]() if name in known else text(f"fields[{name}]") for name in columns]
    shown = [text("description"), rich_progress.BarColumn(), *after]
    return rich_progress.Progress(*shown, console=console(stderr=stderr), transient=True, disable=disable)


def map_chunks(work: Callable[[Any], T], items: Sequence[Any] | Any, title: str) -> Iterator[T]:
    """What ``work`` makes of each chunk, in order.

    >>> list(map_chunks(sum, range(1000), "adding"))
    [130816, 368684]
    """
    started, watched = time.monotonic(), console(stderr=True).is_terminal
    with contextlib.ExitStack() as stack:
        bar, task = None, None
        for start in range(0, len(items), CHUNK):
            yield work(items[start : start + CHUNK])
            if bar is None and watched and time.monotonic() - started > QUIET_SECONDS:
                bar = stack.enter_context(progress_bar("percent", "remaining", stderr=True))
                task = bar.add_task(printable(title), total=len(items))
            if bar is not None and task is not None:
                bar.update(task, completed=start + CHUNK)
