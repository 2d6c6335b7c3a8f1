"""Long work on many things, a chunk at a time, with a progress bar where somebody waits for it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from jaxconv.utils import terminal
from jaxconv.utils.terminal import printable

CHUNK = 512
QUIET_SECONDS = 2.0  # before a bar is worth looking at

T = TypeVar("T")


def by_chunks(work: Callable[[Any], T], items: Sequence[Any] | Any, title: str) -> Iterator[T]:
    """What ``work`` makes of each chunk, in order.

    >>> list(by_chunks(sum, range(1000), "adding"))
    [130816, 368684]
    """
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    columns, started = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn()), time.monotonic()
    watched = terminal.console(stderr=True).is_terminal
    with contextlib.ExitStack() as stack:
        bar, task = None, None
        for start in range(0, len(items), CHUNK):
            yield work(items[start : start + CHUNK])
            if bar is None and watched and time.monotonic() - started > QUIET_SECONDS:
                bar = stack.enter_context(terminal.progress(*columns, stderr=True))
                task = bar.add_task(printable(title), total=len(items))
            if bar is not None and task is not None:
                bar.update(task, completed=start + CHUNK)
