"""Files that are either whole or not there."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tintype.errors import StorageError

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_STORAGE |= {errno.EIO, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a disk that is full or can't be written into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise StorageError(f"can't write {path}: {error.strerror or error}") from error
    except SafetensorError as error:  # what safetensors makes of an OSError
        raise StorageError(f"can't write {path}: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none; raises StorageError."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, that becomes `path` at once when it is on the disk.

    What was at `path` is replaced. Raises StorageError, and then leaves no trace of the attempt.
    """
    temporary = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, that becomes `path` at once when all in it is on the disk.

    What was at `path` is replaced. Raises StorageError, and then leaves no trace of the attempt.
    """
    temporary = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for entry in [*temporary.rglob("*"), temporary]:
                if entry.is_file():  # safetensors makes files that only their owner may read
                    entry.chmod(temporary.stat().st_mode & 0o666)
                sync(entry)
            remove_folder(path)
            temporary.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in the middle leaves none of that name."""
    if path.is_dir():
        doomed = path.with_name(f".{path.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows can't open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(*paths: Path) -> str:
    """One hash of the contents of files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
