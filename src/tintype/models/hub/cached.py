"""What lies in the hub's cache: listed, removed, and checked against the hashes it is kept by."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import CachedRepoInfo

from tintype import pocket
from tintype.errors import ModelError, StorageError, WeightsError
from tintype.models.describe import describe
from tintype.models.hub.download import PART, blob_hash, sha256
from tintype.models.loading.find import find
from tintype.models.loading.headers import SAFE_SUFFIX, read_header
from tintype.models.loading.locate import locate
from tintype.models.presets import PRESETS, Preset, preset
from tintype.types import Event, Progress

MODEL_FILES = ("model_index.json", SAFE_SUFFIX)
LORA_FILES = re.compile(r"lora|adapter", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that can be named without a path.

    `megabytes` is what it takes on this disk (MB = 10^6 bytes); None if it isn't here.
    `download` is the size of a preset's download, about, in GB.
    """

    name: str
    title: str
    megabytes: float | None
    download: float | None = None

    @property
    def place(self) -> str:
        """Where it is, in a few words."""
        if self.megabytes is not None:
            return f"{self.megabytes / 1e3:.2f} GB here"
        return f"{self.download:.1f} GB to pull" if self.download else "not here"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file that was verified: `state` is "ok", "damaged", or "unknown" where the hub's hash of
    it isn't stored; `digest` is its own SHA-256, or git's SHA-1 of a small file of the hub."""

    path: Path
    state: str
    digest: str


def entries(cache_dir: Path | None = None) -> list[Entry]:
    """The embedded models, every preset, and the models in the hub's cache that are none."""
    repos = _repos(cache_dir)
    sizes = {repo: info.size_on_disk / 1e6 for repo, info in repos.items()}
    found = [
        Entry(
            name=told.id,
            title=f"embedded, {told.native_size}x{told.native_size} px",
            megabytes=told.megabytes,
        )
        for told in map(describe, pocket.models())
    ]
    found += [
        Entry(
            name=row.name,
            title=row.title,
            megabytes=_megabytes(row, sizes, cache_dir),
            download=row.gigabytes,
        )
        for row in PRESETS.values()
    ]
    known = {row.repo for row in PRESETS.values()}
    known |= {row.adapter.repo for row in PRESETS.values() if row.adapter}
    found += [
        Entry(name=repo, title="from the hub", megabytes=sizes[repo])
        for repo, info in sorted(repos.items())
        if repo not in known and _is_model(info)
    ]
    return found


def remove(model: str, *, cache_dir: Path | None = None) -> float:
    """Delete a preset or hub model from the cache; gives the MB that this freed.

    Of a preset that is an adapter on a base, the adapter alone goes. Raises ModelError for what
    isn't in the cache, and for models that aren't the hub's.
    """
    if locate(model) is not None:
        what = (
            "is a part of tintype"
            if model in pocket.models()
            else "lies in a folder of yours: delete it"
        )
        raise ModelError(f"{what}; rm is for the hub's cache", field="model", value=model)
    row = preset(model)
    repo = (row.adapter.repo if row.adapter else row.repo) if row else model
    info = _repos(cache_dir).get(repo)
    if info is None:
        raise ModelError(f"is not in the hub's cache (no {repo})", field="model", value=model)
    try:
        shutil.rmtree(info.repo_path)
    except OSError as error:
        raise StorageError(f"can't delete {info.repo_path}: {error}") from None
    return info.size_on_disk / 1e6


def verify(
    model: str | Path,
    *,
    cache_dir: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Checked]:
    """Hash a model's weights and compare: no network, and nothing is loaded.

    Files of the hub against the hashes that the cache keeps them by; others are at least whole,
    by their headers, and their SHA-256 is told. Raises WeightsError for a header that is damaged.
    """
    found = find(model, offline=True, allow_pickle=True, cache_dir=cache_dir)
    files = [found.path] if found.is_file else _files(found.path)
    files += [found.adapter] if found.adapter else []
    checked = []
    for step, file in enumerate(files, start=1):
        checked.append(_check(file))
        if on_event:
            on_event(Progress(phase="verify", step=step, total=len(files), message=file.name))
    return checked


def raise_damaged(model: str, checked: list[Checked]) -> None:
    """Raises WeightsError naming the files that are damaged, if any are."""
    damaged = [str(one.path) for one in checked if one.state == "damaged"]
    if damaged:
        raise WeightsError(
            f"{len(damaged)} of {len(checked)} files are damaged: {', '.join(damaged)}. Fetch it "
            f"anew with: tintype models rm {model} --yes && tintype models pull {model}",
            field="model",
            value=model,
        )


def _check(file: Path) -> Checked:
    blob = file.resolve()
    if blob.parent.name == "blobs":
        # before its header, which would only say that something is wrong
        found = blob_hash(blob, blob.name)
        if found is not None:
            return Checked(path=file, state="ok" if found == blob.name else "damaged", digest=found)
    if file.suffix.lower() == SAFE_SUFFIX:
        read_header(file)
    return Checked(path=file, state="unknown", digest=sha256(file))


def _files(folder: Path) -> list[Path]:
    wanted = (SAFE_SUFFIX, ".bin", ".json")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in wanted and p.is_file())


def _repos(cache_dir: Path | None) -> dict[str, CachedRepoInfo]:
    """The model repositories in the cache, by id; a download that was cut off counts too."""
    try:
        scanned = scan_cache_dir(cache_dir or constants.HF_HUB_CACHE)
    except CacheNotFound:
        return {}
    return {info.repo_id: info for info in scanned.repos if info.repo_type == "model"}


def _megabytes(row: Preset, sizes: dict[str, float], cache_dir: Path | None) -> float | None:
    """What a preset takes here; None if it, or a part of it, isn't."""
    repos = [row.repo, *([row.adapter.repo] if row.adapter else [])]
    if any(repo not in sizes for repo in repos):
        return None
    try:
        find(row.name, offline=True, cache_dir=cache_dir)
    except ModelError:
        return None
    return sum(sizes[repo] for repo in repos)


def _is_model(info: CachedRepoInfo) -> bool:
    """Whether a repository holds a base model, as far as its files' names tell."""
    names = [file.file_name for revision in info.revisions for file in revision.files]
    return any(
        name.endswith(MODEL_FILES) and not LORA_FILES.search(name) and not name.endswith(PART)
        for name in names
    )
