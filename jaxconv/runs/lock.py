"""One writer for a run folder."""

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
    """The process that writes a run folder."""

    host: str
    process: int
    since: str


class RunLock(NamedTuple):
    """The right to write a run folder; :func:`lock_run` gives it."""

    folder: Path
    owner: Owner

    def check(self) -> None:
        """Refuse to go on in a folder that is no longer the run's.

        Raises:
            InputError: it was removed, moved or replaced since.
        """
        if distributed.is_main_process() and _owner(self.folder) != self.owner:
            raise InputError(
                f"the run folder {self.folder} was removed, moved or replaced while it was trained in: "
                "training has stopped; if it was moved, go on there with --resume"
            )


@contextmanager
def lock_run(folder: Path) -> Iterator[RunLock]:
    """Lock a run folder while it is written; of several processes that train together, the first does.

    The kernel holds the lock (``flock``; on Windows ``LockFile``), on the file ``.lock``, and lets go of it when the
    process ends, however it ends: after ``kill -9`` the next one has it at once. ``.lock.json`` tells who holds it.
    Whoever only reads a run takes no lock.

    On one machine this keeps a second writer out. Over NFS it does if the server keeps locks for its clients, as NFS
    4 and ``lockd`` do; between mounts with ``nolock``, and where a file system knows no locks, of which there is a
    warning, nothing keeps two machines apart.

    Args:
        folder: the run's, which exists.

    Raises:
        InputError: another process has it, by host, process and time; or the folder cannot be written.
    """
    owner = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    fault = _acquire(lock, folder, owner) if distributed.is_main_process() else None
    try:
        if distributed.broadcast_from_main(fault is not None):
            raise InputError(fault or f"process 0 cannot write {folder}; what it printed tells why")
        yield RunLock(folder, owner)
    finally:
        if distributed.is_main_process() and fault is None:
            if _owner(folder) == owner:
                with suppress(OSError):
                    (folder / ".lock.json").unlink()
            lock.release()


def _acquire(lock: filelock.BaseFileLock, folder: Path, owner: Owner) -> str | None:
    """Take a lock and write the owner down; what keeps it from that, or None."""
    path = folder / ".lock"
    if path.is_symlink():  # which older versions of filelock follow, and empty its target
        return f"{path} is a symbolic link: delete it"
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = _owner(folder)
        who = f"process {holder.process} on {holder.host}, since {holder.since}" if holder else "another process"
        return f"{folder} is being trained in by {who}: wait until it has ended, or stop it"
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            return f"{path} cannot be written: {error.strerror or error}"
        warnings.warn(f"the file system of {folder} has no locks: see that only one process trains in it", stacklevel=4)
    try:
        write_json(folder / ".lock.json", owner._asdict())
    except InputError as error:
        with suppress(OSError):
            path.unlink()
        lock.release()
        return str(error)
    return None


def _owner(folder: Path) -> Owner | None:
    """The process that wrote ``.lock.json``; None if there is no such file, or another one."""
    try:
        return Owner(**read_json(folder / ".lock.json", dict[str, str | int]))
    except (FileNotFoundError, InputError, TypeError):
        return None
