"""The card of a model: `tintype.json` beside the weights, or a single file's metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tintype.errors import ModelError, WeightsError
from tintype.models.presets import Preset

SIDECAR = "tintype.json"
METADATA_KEY = "tintype.card"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a model has learnt: in a prompt, `[name]` stands for its identifier."""

    name: str
    identifier: str
    class_noun: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a model beside its weights.

    `id` is what the person typed; `path` where its files are; `identifier` and `class_noun`
    are those of the (first) subject it was trained on, if it was, and `subjects` all of them;
    `defaults` are its own for "train" and
    "generate", over the family's; `preset` is the row of a model that has one.
    """

    id: str
    path: Path
    identifier: str | None = None
    class_noun: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    preset: Preset | None = None
    subjects: tuple[Subject, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """The identifiers of the subjects by their names."""
        return {subject.name: subject.identifier for subject in self.subjects}

    def with_preset(self, row: Preset) -> "ModelCard":
        """This card with a preset's defaults; its own win over them."""
        generate = {**row.generate, **self.defaults.get("generate", {})}
        return replace(self, defaults={**self.defaults, "generate": generate}, preset=row)


def read_card(folder: Path, model_id: str) -> ModelCard:
    """The card in `folder`; a model without one has neither subject nor defaults of its own.

    Raises ModelError for a card whose values are of the wrong kind.
    """
    return _card(read_json(folder / SIDECAR) or {}, folder / SIDECAR, folder, model_id)


def card_of_metadata(path: Path, model_id: str, metadata: Mapping[str, str]) -> ModelCard:
    """The card of a single file: the JSON object under `tintype.card` in its metadata, if any."""
    return _card(card_values(path, metadata), path, path, model_id)


def card_values(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """All that a single file's card says; raises ModelError if it isn't a JSON object."""
    try:
        values = json.loads(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ModelError(f"metadata {METADATA_KEY} isn't a JSON object", value=str(path))
    return values


def portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A card for others to read: of a base model's path on this machine only the name is left."""
    base = values.get("base_model")
    if isinstance(base, str) and Path(base).is_absolute():
        return {**values, "base_model": Path(base).name}
    return dict(values)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file; raises WeightsError if it doesn't parse."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise WeightsError(
            f"isn't readable JSON: {error}", field="model", value=str(path)
        ) from None
    if not isinstance(value, dict):
        raise WeightsError("isn't a JSON object", field="model", value=str(path))
    return value


def _card(values: dict[str, Any], source: Path, path: Path, model_id: str) -> ModelCard:
    for key, kind in (("identifier", str), ("class_noun", str), ("defaults", dict)):
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise ModelError(
                f"{key} in {source} should be a {kind.__name__}", field=key, value=values[key]
            )
    return ModelCard(
        id=model_id,
        path=path,
        identifier=values.get("identifier") or None,
        class_noun=values.get("class_noun") or None,
        defaults=values.get("defaults") or {},
        subjects=_subjects(values.get("subjects") or [], source),
    )


def _subjects(rows: Any, source: Path) -> tuple[Subject, ...]:
    """Raises ModelError for rows that aren't subjects."""
    try:
        return tuple(
            Subject(**{key: str(row[key]) for key in ("name", "identifier", "class_noun")})
            for row in rows
        )
    except (KeyError, TypeError):
        raise ModelError(
            f"subjects in {source} should each have a name, an identifier and a class_noun",
            field="subjects",
            value=rows,
        ) from None
