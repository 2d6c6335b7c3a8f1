"""Control of worker processes: requests with a timeout, and cleanup."""

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
    """A worker that failed and is excluded; the message gives the reason in one line."""


class WorkerProcess:
    """A worker process, to be used as a context manager that always ends it.

    Args:
        command: command line of the process, which replies to lines with lines of JSON.
        timeout: maximum seconds for a reply.
    """

    def __init__(self, command: Sequence[str], *, timeout: float) -> None:
        self.timeout = timeout
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # closed in close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # only the parent receives Ctrl-C; it ends the workers
        )
        self._replies: queue.Queue[str | None] = queue.Queue()
        # A thread, since not every system can read a pipe with a timeout.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def read_reply(self, description: str) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            WorkerFailed: if the reply takes longer than ``timeout``, is not JSON, or the process has ended.
        """
        try:
            line = self._replies.get(timeout=self.timeout)
        except queue.Empty:
            raise WorkerFailed(f"{description} took more than {self.timeout:g} s") from None
        if line is None:
            raise WorkerFailed(self._exit_reason())
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise WorkerFailed(f"expected a JSON reply, got {line.strip()!r}") from None
        return reply

    def run(self, steps: int) -> float:
        """Run this many steps and return the seconds that they take.

        Raises:
            WorkerFailed: if the reply takes longer than ``timeout``, or the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"run {steps}\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerFailed(self._exit_reason()) from None
        return float(self.read_reply(f"{steps} steps")["seconds"])

    def _exit_reason(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        status = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"the worker process ended ({status})" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=5)  # the pipe closes with the process, unless a child keeps it open
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # unsent data has no reader
            self._process.stdin.close()
        if not self._listener.is_alive():
            self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(target: Target, model: str, batch: int, *, timeout: float, tune: bool = True) -> WorkerProcess:
    """Start the worker process of a target; its first reply reports that it is ready."""
    command = [sys.executable, "-m", "benchmarks.worker", target.framework, model, str(batch)]
    command += ["--mode", target.mode, *([] if tune else ["--no-cpu-tuning"])]
    return WorkerProcess(command, timeout=timeout)
