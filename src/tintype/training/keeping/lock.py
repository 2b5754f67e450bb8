"""One process at a time in a run folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tintype.errors import RunError
from tintype.files import storage_errors

LOCK, HOLDER = "run.lock", "run.pid"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock; the system lets go of it when this process ends, however it ends.

    The folder is made if it isn't there. Raises RunError that names the process which holds it,
    StorageError.
    """
    holder = run / HOLDER  # beside the lock, which other processes can't read on every system
    lock = FileLock(run / LOCK)
    with storage_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{_holder(holder)} trains here: wait for it, stop it, or choose another --out",
                field="run",
                value=str(run),
            ) from None
    try:
        with storage_errors(holder):
            holder.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    """The process that holds the lock, as it wrote itself down."""
    try:
        pid, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # it has begun or ended just now
        return "another process"
    return f"process {pid} on {host}"
