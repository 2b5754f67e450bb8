"""Models of the Hugging Face hub: just the files that are needed, through the hub's own cache.

The configs come first, so that a model of another family, or one in pickles, is refused before
gigabytes are downloaded. `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are honoured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from tintype.errors import ModelError, StorageError, WeightsError
from tintype.models.card import SIDECAR
from tintype.models.hub.download import LIBRARY, OnEvent, download, event_bar
from tintype.models.loading.folder import read_folder, weights_files
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, refuse_pickle
from tintype.models.loading.recognise import missing_part

SMALL_FILES = [
    "model_index.json",
    "README.md",
    SIDECAR,
    "*/config.json",
    "scheduler/*",
    "tokenizer*/*",
]
WEIGHT_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


def fetch(
    repo: str,
    *,
    file: str | None = None,
    variant: str | None = None,
    offline: bool = False,
    cache_dir: Path | None = None,
    allow_pickle: bool = False,
    on_event: OnEvent = None,
) -> Path:
    """The folder (or single file) of `owner/name`, downloaded where the cache lacks it.

    `file` takes one file at its root; `variant` ("fp16") prefers the weights of that variant
    where they lack in the cache. A download that was cut off goes on where it stopped.
    Raises ModelError for a model that doesn't exist, is gated, or can't be reached and isn't in
    the cache, each with what to type; WeightsError for one that could not be loaded anyway.
    """
    if file is not None:
        return fetch_file(repo, file, offline=offline, cache_dir=cache_dir, on_event=on_event)
    common: dict[str, Any] = {
        "cache_dir": cache_dir,
        "local_files_only": offline,
        "tqdm_class": event_bar(repo, on_event),
        **LIBRARY,
    }
    with _errors(repo):
        folder = Path(snapshot_download(repo, allow_patterns=SMALL_FILES, **common))
    revision = folder.name
    listed = None if offline else _listing(repo, revision)
    diffusers_layout = (folder / "model_index.json").is_file()
    if listed is None:
        return _cached(repo, folder)
    if not diffusers_layout:
        chosen = [_single_file(repo, listed, Path()).name]
    else:
        parts = read_folder(folder).parts
        infixes = ("", ".fp16") if variant is None else (f".{variant}", "")
        chosen = [
            name for part in parts for name in _weights(part, listed, infixes, repo, allow_pickle)
        ]
    with _errors(repo):
        download(repo, chosen, folder, on_event=on_event)
        snapshot_download(repo, revision=revision, allow_patterns=chosen, **common)
    return folder if diffusers_layout else folder / chosen[0]


def fetch_file(
    repo: str,
    file: str,
    *,
    offline: bool = False,
    cache_dir: Path | None = None,
    on_event: OnEvent = None,
) -> Path:
    """One file of `owner/name`, downloaded where the cache lacks it; raises as `fetch` does."""
    common: dict[str, Any] = {
        "cache_dir": cache_dir,
        "local_files_only": offline,
        "tqdm_class": event_bar(repo, on_event),
        **LIBRARY,
    }
    with _errors(repo):
        folder = Path(snapshot_download(repo, allow_patterns=["*.md"], **common))
        listed = None if offline else _listing(repo, folder.name)
        if listed is not None and file in listed:
            download(repo, [file], folder, on_event=on_event)
            snapshot_download(repo, revision=folder.name, allow_patterns=[file], **common)
    if (folder / file).is_file():
        return folder / file
    if listed is None:
        raise _not_cached(repo)
    raise ModelError(f"has no file {file}", field="model", value=repo)


def _cached(repo: str, folder: Path) -> Path:
    """What a cached snapshot holds; raises ModelError if it was never downloaded to its end."""
    if not (folder / "model_index.json").is_file():
        names = [path.name for path in folder.iterdir() if path.is_file()]
        return _single_file(repo, names, folder)
    parts = read_folder(folder).parts
    try:
        for part in parts:
            weights_files(folder / part, allow_pickle=True)
    except WeightsError:
        raise _not_cached(repo) from None
    return folder


def _listing(repo: str, revision: str) -> list[str] | None:
    """The names of a repository's files, or None where the hub can't be reached."""
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        with _errors(repo):
            info = HfApi(**LIBRARY).model_info(repo, revision=revision)
    except ModelError:
        return None
    return [sibling.rfilename for sibling in info.siblings or []]


def _weights(
    part: str, listed: list[str], infixes: tuple[str, ...], repo: str, allow_pickle: bool
) -> list[str]:
    """A part's files: the first infix before others, safetensors before pickles; all shards and
    their index.

    Raises WeightsError if there are none but pickles, and those aren't allowed.
    """
    names = [name for name in listed if name.startswith(f"{part}/")]
    for suffix in (SAFE_SUFFIX, *PICKLE_SUFFIXES):
        for infix in infixes:
            chosen = [
                name
                for name in names
                for stem in WEIGHT_STEMS
                if _is_weights(name.removeprefix(f"{part}/"), stem, infix, suffix)
            ]
            if any(name.endswith(suffix) for name in chosen):
                for name in chosen:
                    refuse_pickle(Path(name), allowed=allow_pickle)
                return chosen
    raise missing_part(f"weights of {part}", Path(repo), f"a {SAFE_SUFFIX} file in {part}/")


def _is_weights(name: str, stem: str, infix: str, suffix: str) -> bool:
    """STEM[.fp16].SUFFIX, its shards STEM[.fp16]-00001-of-00002.SUFFIX, and their index."""
    whole = f"{stem}{infix}{suffix}"
    if name in (whole, f"{whole}.index.json", f"{stem}{suffix}.index{infix}.json"):
        return True
    shard = name.removeprefix(f"{stem}{infix}-").removesuffix(suffix)
    older = name.removeprefix(f"{stem}-").removesuffix(f"{infix}{suffix}")
    return any(text[:5].isdigit() and text[5:9] == "-of-" for text in (shard, older))


def _single_file(repo: str, names: list[str], folder: Path) -> Path:
    """The one weights file at the root of a repository that isn't in diffusers layout."""
    files = [name for name in names if "/" not in name and name.endswith(SAFE_SUFFIX)]
    if len(files) != 1:
        found = f"several files ({', '.join(files[:5])})" if files else "no model_index.json"
        raise WeightsError(
            f"found {found}; expected a diffusers folder or one {SAFE_SUFFIX} file. Download the "
            "one you mean and give its path",
            field="model",
            value=repo,
        )
    return folder / files[0]


def _not_cached(repo: str) -> ModelError:
    return ModelError(
        "is not (or not wholly) in the hub's cache, and the hub can't be reached or offline mode "
        "is on. Connect once without --offline and HF_HUB_OFFLINE, or download it with: "
        f"tintype models pull {repo}",
        field="model",
        value=repo,
    )


@contextmanager
def _errors(repo: str) -> Iterator[None]:
    """The hub's errors in our words, with what to do about each."""

    def error(problem: str) -> ModelError:
        return ModelError(problem, field="model", value=repo)

    try:
        yield
    except GatedRepoError:
        raise error(
            f"is gated: accept its terms at {constants.ENDPOINT}/{repo}, then log in with: "
            "hf auth login (or set HF_TOKEN)"
        ) from None
    except RepositoryNotFoundError:
        raise error(
            f"there is no such model on {constants.ENDPOINT}, or it is private: check the name, "
            "or log in with: hf auth login (or set HF_TOKEN)"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise _not_cached(repo) from None
    except HFValidationError as problem:
        raise error(f"is not a hub id: {problem}") from None
    except HfHubHTTPError as problem:
        raise error(f"the hub answered: {str(problem).splitlines()[0]}") from None
    except HTTPError as problem:
        raise error(f"the hub can't be reached: {problem or type(problem).__name__}") from None
    except OSError as problem:
        raise StorageError(f"can't store {repo} in the hub's cache: {problem}") from None
