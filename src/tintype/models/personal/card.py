"""What a personal model's folder says: its base model by name, and what lies here to add to it.

No torch is imported.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tintype.errors import ModelError, WeightsError
from tintype.models.card import SIDECAR, read_json
from tintype.models.loading.headers import read_header

BASE, ADAPTER, EMBEDDINGS, WEIGHTS, ADDS, SCHEDULER = (
    "base_model",
    "adapter",
    "embeddings",
    "weights",
    "adds",
    "scheduler",
)


@dataclass(frozen=True, kw_only=True)
class PersonalCard:
    """A folder whose `tintype.json` names a base model and files that are put on it.

    `adapter` and `embeddings` are safetensors files, `weights` one of whole tensors by name;
    `adds` says in a line what they are; `scheduler` are settings of the base model's scheduler
    that the training changed.
    """

    folder: Path
    base_model: str
    adapter: Path | None = None
    embeddings: tuple[Path, ...] = ()
    weights: Path | None = None
    adds: str = ""
    scheduler: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        files = (self.adapter, *self.embeddings, self.weights)
        return tuple(file for file in files if file is not None)


def personal_card(folder: Path) -> PersonalCard | None:
    """The card of a personal model, or None for a folder that isn't one.

    Raises ModelError for values of the wrong kind, WeightsError for a file that is missing or
    damaged.
    """
    values = read_json(folder / SIDECAR) or {}
    if not values.get(BASE) or not any(values.get(key) for key in (ADAPTER, EMBEDDINGS, WEIGHTS)):
        return None
    embeddings = values.get(EMBEDDINGS) or []
    if not isinstance(embeddings, list):
        raise _wrong(folder, EMBEDDINGS, embeddings, "a list of file names")
    scheduler = values.get(SCHEDULER) or {}
    if not isinstance(scheduler, dict):
        raise _wrong(folder, SCHEDULER, scheduler, "settings by name")
    return PersonalCard(
        scheduler=scheduler,
        folder=folder,
        base_model=_text(folder, BASE, values[BASE]),
        adapter=_file(folder, ADAPTER, values.get(ADAPTER)),
        embeddings=tuple(_there(folder, EMBEDDINGS, name) for name in embeddings),
        weights=_file(folder, WEIGHTS, values.get(WEIGHTS)),
        adds=_text(folder, ADDS, values.get(ADDS) or "an addition"),
    )


def base_of(card: PersonalCard) -> str:
    """What to load the base model by; raises ModelError, with what to type, if it isn't there."""
    path = Path(card.base_model).expanduser()
    itself = path.is_dir() and path.resolve() in (
        card.folder.resolve(),
        card.folder.parent.resolve(),
    )
    looks_local = path.is_absolute() or path.suffix
    if not itself and (path.exists() or not looks_local):
        return card.base_model
    hint = ""
    if card.adapter is not None:
        hint = f", or draw with: tintype generate --model BASE --adapter {card.adapter}"
    raise ModelError(
        f"its base model {card.base_model!r} {'is itself' if itself else 'is not there'}. Say "
        f"where it is now as {BASE!r} in {card.folder / SIDECAR}{hint}",
        field="model",
        value=str(card.folder),
    )


def _file(folder: Path, key: str, name: Any) -> Path | None:
    return _there(folder, key, name) if name else None


def _there(folder: Path, key: str, name: Any) -> Path:
    path = folder / _text(folder, key, name)
    if not path.is_file():
        raise WeightsError(f"{key} of {folder / SIDECAR} is missing", field=key, value=str(path))
    read_header(path)
    return path


def _text(folder: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(folder, key, value, "a text")
    return value


def _wrong(folder: Path, key: str, value: Any, kind: str) -> ModelError:
    return ModelError(f"{key} in {folder / SIDECAR} should be {kind}", field=key, value=value)
