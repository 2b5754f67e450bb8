"""Hashes that tell models apart by their weights, for the keys of caches."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.errors import ModelError
from tintype.models.headers import PICKLE_SUFFIXES, SAFE_SUFFIX

if TYPE_CHECKING:
    from tintype.models.model import Model


def weights_sha256(path: Path) -> str:
    """SHA-256 of a folder's weights files, by relative name in sorted order, or of one file.

    Safetensors alone count where there are any, else pickles. A file is read again only when its
    size or time has changed. Raises ModelError for a folder without weights.
    """
    if path.is_file():
        return _file_sha256(path)
    files = _weights(path, (SAFE_SUFFIX,)) or _weights(path, PICKLE_SUFFIXES)
    if not files:
        raise ModelError("holds no weights", field="model", value=str(path))
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(path).as_posix()}\0{_file_sha256(file)}\n".encode())
    return whole.hexdigest()


def model_key(model: "Model") -> str:
    """16 hex digits for the model as it lies on disk: weights, schedule and dtype.

    The same files give the same key wherever they lie. Adapters and training done since the
    model was loaded don't count.
    """
    said = [weights_sha256(model.card.path), model.scheduler_config, str(model.dtype)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _weights(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _read_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
