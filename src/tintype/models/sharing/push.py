"""A model, an adapter or an embedding to the Hugging Face hub: what it takes to use it, no more.

What is sent is chosen by what a model's folder has, never by leaving things out: training
pictures, checkpoints and logs stay here whatever they are called.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from tintype.errors import ModelError
from tintype.models.card import SIDECAR, card_values, portable, read_json
from tintype.models.describe import describe_any
from tintype.models.hub.hub import LIBRARY
from tintype.models.inspect import FileDescription
from tintype.models.loading.headers import SAFE_SUFFIX, read_header
from tintype.models.loading.locate import place_of
from tintype.models.loading.recognise import ADAPTERS, EMBEDDING
from tintype.models.personal.card import personal_card
from tintype.models.sharing.readme import HERE, PICTURES, README, Facts, facts_of, readme
from tintype.types import PushRequest

SENT = (
    f"*{SAFE_SUFFIX}",
    "*.json",
    "*.md",
    "LICENSE*",
    "NOTICE*",
    "tokenizer*/*.txt",
    f"{PICTURES}/*.jpg",
)
KEPT_HERE = ("checkpoints", "samples", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One file: its name on the hub, and where it is here, or what it holds."""

    name: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was sent, or with a dry run would be; `url` is where it is now."""

    repo: str
    private: bool
    uploads: tuple[Upload, ...]
    kept_here: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    url: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(upload.size for upload in self.uploads)


def push(request: PushRequest, *, offline: bool = False) -> Pushed:
    """Send what a request names to the hub, in one commit; a dry run touches no network.

    Raises ModelError for what is no model, a repository's name that can't be one, a token that
    is missing or may not write there, and a hub that can't be reached, each with what to type.
    """
    planned = plan(request)
    if request.dry_run:
        return planned
    if offline or constants.HF_HUB_OFFLINE:
        raise _error(request, "offline mode is on: leave out --offline and unset HF_HUB_OFFLINE")
    if get_token() is None:
        raise _error(
            request,
            "there is no token: log in with: hf auth login (or set HF_TOKEN), with a token that "
            f"may write, from {constants.ENDPOINT}/settings/tokens",
        )
    api = HfApi(**LIBRARY)
    with _errors(request):
        api.create_repo(request.repo, private=request.private or None, exist_ok=True)
        commit = api.create_commit(
            request.repo,
            [CommitOperationAdd(upload.name, upload.source) for upload in planned.uploads],
            commit_message=f"Upload {Path(request.source).name} with tintype",
        )
    return replace(planned, url=str(commit.repo_url))


def plan(request: PushRequest) -> Pushed:
    """What would be sent; no network is touched."""
    try:
        validate_repo_id(request.repo)
    except HFValidationError as problem:
        raise _error(request, f"is no name of a repository: {problem}") from None
    if request.repo.count("/") != 1:
        raise _error(request, "is no name of a repository: expected OWNER/NAME")
    place = place_of(request.source)
    if place is None:
        raise ModelError("there is no such file or folder", field="model", value=request.source)
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    root = place.parent if place.is_file() else place
    names = {file.relative_to(root).as_posix(): file for file in files}
    chosen = {n: file for n, file in names.items() if place.is_file() or _is_sent(n)}
    if not any(file.suffix == SAFE_SUFFIX for file in chosen.values()):
        raise ModelError(
            f"holds no {SAFE_SUFFIX} file to send", field="model", value=request.source
        )
    uploads = {name: Upload(name=name, source=file) for name, file in chosen.items()}
    notes = []
    card = _card(place)
    if SIDECAR in uploads:
        text = json.dumps(portable(card), indent=2, ensure_ascii=False)
        uploads[SIDECAR] = Upload(name=SIDECAR, source=f"{text}\n".encode())
    if portable(card) != card and place.is_dir() and personal_card(place):
        notes.append(
            f"its base model is a path on this machine ({card['base_model']}), of which only the "
            "name is sent: who downloads it has to have that model too"
        )
    text = _readme(place, request.repo, names.get(README), card)
    uploads[README] = Upload(name=README, source=text.encode())
    return Pushed(
        repo=request.repo,
        private=request.private,
        uploads=tuple(uploads[name] for name in sorted(uploads)),
        kept_here=tuple(name for name in names if name not in uploads),
        notes=tuple(notes),
    )


def _is_sent(name: str) -> bool:
    folders = name.split("/")[:-1]
    hidden = any(part.startswith(".") for part in name.split("/"))
    return (
        not hidden
        and not set(folders) & set(KEPT_HERE)
        and any(fnmatchcase(name, pattern) for pattern in SENT)
    )


def _card(place: Path) -> dict[str, Any]:
    if place.is_dir():
        return read_json(place / SIDECAR) or {}
    if place.suffix.lower() != SAFE_SUFFIX:
        return {}
    return card_values(place, read_header(place).metadata)


def _readme(place: Path, repo: str, own: Path | None, card: dict[str, Any]) -> str:
    """The card that lies there, with the repository's name in it, or the little that is known."""
    if own is not None:
        text = own.read_text(encoding="utf-8", errors="replace")
    else:
        text = readme(_facts(place, repo.split("/")[1], portable(card)))
    return text.replace(HERE, repo)


def _facts(place: Path, title: str, card: dict[str, Any]) -> Facts:
    own = personal_card(place) if place.is_dir() else None
    if own is not None:
        return replace(
            facts_of(card, title=title, family=None, licence=None),
            adds=own.adds,
            adapter=own.adapter.name if own.adapter else None,
            embeddings=tuple(file.name for file in own.embeddings),
        )
    if place.is_dir() and not (place / "model_index.json").is_file():
        return replace(facts_of(card, title=title, family=None, licence=None), adds="an adapter")
    told = describe_any(place)
    if isinstance(told, FileDescription):
        return replace(
            facts_of(card, title=title, family=None, licence=None),
            adds=told.kind,
            adapter=place.name if told.kind in ADAPTERS else None,
            embeddings=(place.name,) if told.kind == EMBEDDING else (),
        )
    return facts_of(card, title=title, family=told.family, licence=told.licence)


def _error(request: PushRequest, problem: str) -> ModelError:
    return ModelError(problem, field="repository", value=request.repo)


@contextmanager
def _errors(request: PushRequest) -> Iterator[None]:
    """The hub's errors in our words, with what to do about each."""
    owner = request.repo.split("/")[0]
    try:
        yield
    except HfHubHTTPError as problem:
        status = getattr(problem.response, "status_code", None)
        if status == 401:
            told = "the hub doesn't know the token: log in again with: hf auth login"
        elif status in (403, 404):
            told = (
                f"the token may not write for {owner}: use one that may, from "
                f"{constants.ENDPOINT}/settings/tokens, or another owner"
            )
        else:
            told = f"the hub answered: {str(problem).splitlines()[0]}"
        raise _error(request, told) from None
    except HTTPError as problem:
        told = f"{constants.ENDPOINT} can't be reached: {problem or type(problem).__name__}"
        raise _error(request, told) from None
    except RuntimeError as problem:  # an upload that broke off
        raise _error(request, f"{problem} Try again: what was sent is kept") from None
