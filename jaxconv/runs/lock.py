"""Lock of a run folder, which at most one process writes."""

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import filelock

from jaxconv import distributed
from jaxconv.errors import InputError
from jaxconv.utils.files import read_json, write_json

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Owner(NamedTuple):
    """Process that writes a run folder."""

    host: str
    process: int
    since: str


class RunLock(NamedTuple):
    """Lock of a run folder, returned by :func:`lock_run`."""

    folder: Path
    owner: Owner

    def check(self) -> None:
        """Raise InputError unless the folder is still the locked one.

        Raises:
            InputError: if the folder was removed, moved or replaced.
        """
        if distributed.is_main_process() and _owner(self.folder) != self.owner:
            raise InputError(
                f"the run folder {self.folder} was removed, moved or replaced during training: "
                "training has stopped; if it was moved, resume it there with --resume"
            )


@contextmanager
def lock_run(folder: Path) -> Iterator[RunLock]:
    """Lock a run folder while it is written; in multi-process training, process 0 takes the lock.

    The lock is a kernel lock (``flock``; on Windows ``LockFile``) on the file ``.lock``. The kernel releases it when
    the process ends, even after ``kill -9``. ``.lock.json`` names the process that holds it. Reading a run takes no
    lock.

    On one machine this excludes a second writer. Over NFS it does if the server supports locks, as NFS 4 and ``lockd``
    do. Two machines are not kept apart with ``nolock`` mounts, or on a file system without locks, which is warned of.

    Args:
        folder: an existing run folder.

    Raises:
        InputError: if another process holds the lock, or the folder cannot be written.
    """
    owner = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    error = _acquire(lock, folder, owner) if distributed.is_main_process() else None
    try:
        if distributed.broadcast_from_main(error is not None):
            raise InputError(error or f"process 0 cannot write {folder}: see its output")
        yield RunLock(folder, owner)
    finally:
        if distributed.is_main_process() and error is None:
            if _owner(folder) == owner:
                with suppress(OSError):
                    (folder / ".lock.json").unlink()
            lock.release()


def _acquire(lock: filelock.BaseFileLock, folder: Path, owner: Owner) -> str | None:
    """Take the lock and write ``.lock.json``; return an error message, or None."""
    path = folder / ".lock"
    if path.is_symlink():  # older versions of filelock follow the link and truncate its target
        return f"{path} is a symbolic link: delete it"
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = _owner(folder)
        name = f"process {holder.process} on {holder.host}, since {holder.since}" if holder else "another process"
        return f"{folder} is locked by {name}: wait until it ends, or stop it"
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            return f"{path} cannot be written: {error.strerror or error}"
        warnings.warn(
            f"the file system of {folder} has no locks: make sure that only one process writes it", stacklevel=4
        )
    try:
        write_json(folder / ".lock.json", owner._asdict())
    except InputError as error:
        with suppress(OSError):
            path.unlink()
        lock.release()
        return str(error)
    return None


def _owner(folder: Path) -> Owner | None:
    """Return the process in ``.lock.json``, or None if the file is missing or invalid."""
    try:
        return Owner(**read_json(folder / ".lock.json", dict[str, str | int]))
    except (FileNotFoundError, InputError, TypeError):
        return None
