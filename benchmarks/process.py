"""The parent's end of a worker: ask, wait no longer than a while, and leave nothing running."""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.targets import Target

WORKER = str(Path(__file__).parent / "worker.py")


class WorkerFailed(Exception):
    """A contestant that takes no further part; the message says why, in one line."""


class WorkerProcess:
    """A worker process. Use it with ``with``: it is gone at the end, however that comes about.

    Args:
        command: what to start; it answers lines with lines of JSON.
        timeout: seconds that any answer may take.
    """

    def __init__(self, command: Sequence[str], *, timeout: float) -> None:
        self.timeout = timeout
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # closed in close
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to hear; we end the workers
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        # A thread, since a pipe cannot be waited for with a limit on every system.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def read_reply(self, what: str) -> dict[str, Any]:
        """The next answer.

        Raises:
            WorkerFailed: it took too long, or the process is gone.
        """
        try:
            line = self._answers.get(timeout=self.timeout)
        except queue.Empty:
            raise WorkerFailed(f"{what} took more than {self.timeout:g} s") from None
        if line is None:
            raise WorkerFailed(self._why())
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            raise WorkerFailed(f"it said {line.strip()!r}, which is no answer") from None
        return content

    def run(self, steps: int) -> float:
        """Seconds that so many steps take.

        Raises:
            WorkerFailed: it took too long, or the process is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"run {steps}\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerFailed(self._why()) from None
        return float(self.read_reply(f"{steps} steps")["seconds"])

    def _why(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said if line.strip()]
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended ({ended})" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=5)  # the pipe ends with the process, unless a child of it holds on
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # what was still to be written has no reader
            self._process.stdin.close()
        if not self._listener.is_alive():
            self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(contestant: Target, model: str, batch: int, *, timeout: float, tune: bool = True) -> WorkerProcess:
    """The process of a contestant; its first answer is that it is ready."""
    command = [sys.executable, "-m", "benchmarks.worker", contestant.framework, model, str(batch)]
    command += ["--mode", contestant.mode, *([] if tune else ["--no-cpu-tuning"])]
    return WorkerProcess(command, timeout=timeout)
