"""Weights of the hub into its own cache, going on where a download stopped, checked at the end."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers, tqdm

from tintype.errors import StorageError
from tintype.types import Event, Progress
from tintype.version import __version__

OnEvent = Callable[[Event], None] | None
LIBRARY = {"library_name": "tintype", "library_version": __version__}
SECONDS_BETWEEN_EVENTS = 0.2
PART = ".tintype.part"
SHA256_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file to download: where from, its place among the cache's blobs, its size in bytes."""

    url: str
    headers: dict[str, str]
    blob: Path
    size: int


def download(repo: str, names: Sequence[str], snapshot: Path, *, on_event: OnEvent = None) -> None:
    """Bring the files of those names that the cache lacks into its blobs, for `snapshot_download`.

    `snapshot` is the folder of a revision in the cache, which names it. What was downloaded
    before the process ended is kept, and the next call goes on from there: huggingface_hub begins
    anew. Raises StorageError for a file that doesn't have the hash that the hub states.
    """
    missing = [name for name in names if not (snapshot / name).exists()]
    files = [_look_up(repo, name, snapshot) for name in missing]
    files = [file for file in files if not file.blob.exists()]
    total = sum(file.size for file in files)
    before = 0
    for file in files:
        _fetch(file, event_bar(repo, on_event, before=before, total=total))
        before += file.size


def _look_up(repo: str, name: str, snapshot: Path) -> _File:
    url = hf_hub_url(repo, name, revision=snapshot.name)
    headers = build_hf_headers(**LIBRARY)
    told = get_hf_file_metadata(url, headers=headers)
    if not told.etag or told.size is None:
        raise StorageError(f"the hub doesn't state the hash and size of {repo}/{name}")
    target = told.location or url
    if urlparse(target).netloc != urlparse(url).netloc:
        # the token is the hub's alone
        headers.pop("authorization", None)
    blob = snapshot.parent.parent / "blobs" / told.etag
    return _File(url=target, headers=headers, blob=blob, size=told.size)


def _fetch(file: _File, bar: type) -> None:
    part = file.blob.with_name(file.blob.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(part.with_suffix(".lock")):
        if file.blob.exists():
            return
        with part.open("ab") as target:
            if target.tell() > file.size:
                target.truncate(0)
                target.seek(0)
            http_get(
                file.url,
                target,
                resume_size=target.tell(),
                headers=file.headers,
                expected_size=file.size,
                tqdm_class=bar,
            )
        check_blob(part, file.blob.name)
        part.replace(file.blob)
    part.with_suffix(".lock").unlink(missing_ok=True)


def check_blob(path: Path, etag: str) -> None:
    """Raises StorageError, and removes the file, if it hasn't the hash that its etag states."""
    found = blob_hash(path, etag)
    if found is None or found == etag:
        return
    path.unlink()
    raise StorageError(f"what was downloaded has SHA-256 {found}, the hub states {etag}: try again")


def blob_hash(path: Path, etag: str) -> str | None:
    """The hash of a file in the kind that its etag is: SHA-256 of large files, git's SHA-1 of
    small ones; None for an etag of neither kind."""
    if len(etag) == SHA256_DIGITS:
        return sha256(path)
    if len(etag) == hashlib.sha1().digest_size * 2:
        data = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def event_bar(repo: str, on_event: OnEvent, *, before: int = 0, total: int | None = None) -> type:
    """A progress bar class for huggingface_hub that prints nothing and reports bytes as events.

    `before` bytes of `total` were done by other bars.
    """
    state = {"at": 0.0}

    class EventBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.in_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if not (self.in_bytes and on_event and self.n):
                return
            whole = total or (int(self.total) if self.total else None)
            step = before + int(self.n)
            now = time.monotonic()
            if step == whole or now - state["at"] >= SECONDS_BETWEEN_EVENTS:
                state["at"] = now
                on_event(Progress(phase="download", step=step, total=whole, message=repo))

    return EventBar
