"""Hashes that tell models apart by their weights, for the keys of caches."""

import dataclasses
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.errors import ModelError
from tintype.models.loading.find import find
from tintype.models.loading.folder import parts_of
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header
from tintype.models.personal.card import base_of, personal_card

HEADER_LENGTH = 8  # bytes that say how long a safetensors header is
BLOCK = 1 << 20

if TYPE_CHECKING:
    from tintype.models.model import Model


def weights_sha256(path: Path) -> str:
    """SHA-256 of a folder's weights files, by relative name in sorted order, or of one file.

    In a folder what safetensors say of themselves (such as a date) doesn't count.
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
        whole.update(f"{file.relative_to(path).as_posix()}\0{_tensors_sha256(file)}\n".encode())
    return whole.hexdigest()


def model_key(model: "Model") -> str:
    """16 hex digits for the model as it lies on disk: weights, schedule and dtype.

    A personal model's base counts too, and a preset's adapter. The same files give the same key
    wherever they lie. Adapters and training done since the model was loaded don't count.
    """
    said = [weights_sha256(model.card.path), model.scheduler_config, str(model.dtype)]
    said += _bases(model.card.path)
    preset = model.card.preset
    if preset is not None and preset.adapter is not None:
        said.append(dataclasses.astuple(preset.adapter))
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _bases(path: Path) -> list[str]:
    """The hashes of the models that a model is put on or shares parts of, one under another."""
    own = personal_card(path) if path.is_dir() else None
    base = find(base_of(own), offline=True).path if own else parts_of(path)
    if base is None:
        return []
    return [weights_sha256(base), *_bases(base)]


def _weights(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


def _tensors_sha256(path: Path) -> str:
    if path.suffix.lower() != SAFE_SUFFIX:
        return _file_sha256(path)
    stat = path.stat()
    return _read_tensors_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_tensors_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of a safetensors file's header without its metadata, and of all that comes after it."""
    read_header(path)  # raises WeightsError for a damaged one
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(HEADER_LENGTH), "little")))
        header.pop("__metadata__", None)
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _read_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
