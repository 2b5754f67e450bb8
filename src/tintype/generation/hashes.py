"""Short hashes of adapters and embeddings, as A1111 writes them into a picture, and compares."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tintype.errors import InputError
from tintype.generation.library import Library, stands_in
from tintype.models.hashing import weights_sha256
from tintype.models.loading.headers import SAFE_SUFFIX, read_header
from tintype.text.grammar import AdapterTag, parse
from tintype.text.grammar.parse import adapter_tag
from tintype.types import GenerateRequest

LORA, TI = "Lora hashes", "TI hashes"
LENGTH = 12  # hex digits
STATED = "sshs_model_hash"  # kohya's own SHA-256, in the metadata

Hashes = dict[str, dict[str, str]]


def hashes_of(
    adapters: Sequence[Path], embeddings: Mapping[str, Path], request: GenerateRequest
) -> Hashes:
    """What a picture drawn with these files says of them: kind -> name -> hash."""
    text = f"{request.prompt}\n{request.negative_prompt}"
    used = {path for word, path in embeddings.items() if stands_in(word, text)}
    found = {
        LORA: {path.stem: adapter_hash(path) for path in adapters},
        TI: {path.stem: weights_sha256(path)[:LENGTH] for path in sorted(used)},
    }
    return {kind: hashes for kind, hashes in found.items() if hashes}


def adapter_hash(path: Path) -> str:
    """Of an adapter: what kohya's metadata state, else SHA-256 of a file without its header."""
    if path.is_dir() or path.suffix.lower() != SAFE_SUFFIX:
        return weights_sha256(path)[:LENGTH]
    stated = read_header(path).metadata.get(STATED)
    stat = path.stat()
    return stated[:LENGTH] if stated else _tensors(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _tensors(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)
        return hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]


def written_hashes(hashes: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The fields of A1111's text: kind -> "name: hash, name: hash"."""
    return {
        kind: ", ".join(f"{name}: {value}" for name, value in named.items())
        for kind, named in hashes.items()
    }


def read_hashes(fields: Mapping[str, str]) -> Hashes:
    """The hashes that the fields of such a text hold."""
    found: Hashes = {}
    for kind in (LORA, TI):
        for pair in fields.get(kind, "").split(","):
            name, _, value = (part.strip() for part in pair.rpartition(":"))
            if name and value:
                found.setdefault(kind, {})[name] = value
    return found


def differences(hashes: Hashes, request: GenerateRequest, library: Library) -> Iterator[str]:
    """What is to be said of adapters and embeddings that aren't here, or whose weights differ."""
    tags = [*parse(request.prompt).adapters, *map(adapter_tag, request.adapters)]
    here = {path.stem: path for tag in tags if (path := _path(tag, library)) is not None}
    for name, value in hashes.get(LORA, {}).items():
        own = adapter_hash(here[name]) if name in here else None
        yield from _difference("adapter", name, value, own)
    for name, value in hashes.get(TI, {}).items():
        path = library.embedding_names.get(name)
        own = None if path is None else weights_sha256(path)[:LENGTH]
        yield from _difference("embedding", name, value, own)


def _difference(kind: str, name: str, theirs: str, ours: str | None) -> Iterator[str]:
    length = min(len(theirs), LENGTH)
    if ours is None:
        yield f"the picture was drawn with the {kind} {name!r} ({theirs}), which isn't here"
    elif ours[:length].lower() != theirs[:length].lower():
        yield (
            f"the picture was drawn with other weights of the {kind} {name!r} ({theirs}) than "
            f"those here ({ours})"
        )


def _path(tag: AdapterTag, library: Library) -> Path | None:
    try:
        return library.adapter(tag).path
    except InputError:
        return None
