"""What a model is, told from headers and configs alone: no weights are read, torch isn't needed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tintype.models.card import ModelCard, card_of_metadata, read_card, read_json
from tintype.models.folder import read_folder, weights_files
from tintype.models.headers import SAFE_SUFFIX, Header, read_header, refuse_pickle
from tintype.models.hub import fetch
from tintype.models.infer import infer_configs
from tintype.models.locate import POCKET, locate
from tintype.models.recognise import (
    TEXT_SD1,
    TEXT_XL_1,
    TEXT_XL_2,
    UNET,
    VAE,
    recognise_keys,
)
from tintype.models.registry import family
from tintype.pocket import concepts

PREFIXES = {
    "sd1": {"unet": UNET, "vae": VAE, "text_encoder": TEXT_SD1},
    "sdxl": {"unet": UNET, "vae": VAE, "text_encoder": TEXT_XL_1, "text_encoder_2": TEXT_XL_2},
}


@dataclass(frozen=True, kw_only=True)
class PartDescription:
    """One part: its size on disk in MB (10^6 bytes), and its parameters (None for a pickle)."""

    name: str
    megabytes: float
    parameters: int | None


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What `tintype models show` says; `native_size` is a side in pixels."""

    id: str
    family: str
    path: Path
    parts: tuple[PartDescription, ...]
    native_size: int
    prediction_type: str
    identifier: str | None = None
    class_noun: str | None = None
    concepts: tuple[str, ...] = ()
    licence: str | None = None
    card: str | None = None

    @property
    def megabytes(self) -> float:
        return sum(part.megabytes for part in self.parts)

    @property
    def parameters(self) -> int:
        return sum(part.parameters or 0 for part in self.parts)


def describe(
    model: str | Path, *, allow_pickle: bool = False, cache_dir: Path | None = None
) -> ModelDescription:
    """Describe what `load` would load; of the hub, only what lies in its cache already.

    Raises the errors of `load`, but for those in the tensors' values.
    """
    found = locate(model)
    if found is None:
        path = fetch(str(model), offline=True, cache_dir=cache_dir)
        is_file = path.is_file()
    else:
        path, is_file = found.path, found.is_file
    if is_file:
        return _describe_file(path, str(model))
    return _describe_folder(path, str(model), allow_pickle)


def _describe_folder(path: Path, model_id: str, allow_pickle: bool) -> ModelDescription:
    folder = read_folder(path)
    parts = []
    for name in folder.parts:
        files = weights_files(path / name, allow_pickle=allow_pickle)
        parts.append(
            PartDescription(
                name=name,
                megabytes=sum(file.stat().st_size for file in files) / 1e6,
                parameters=_parameters(files),
            )
        )
    # pocket's card covers its image encoder too, so it lies above the weights
    readme = path.parent / "MODEL_CARD.md" if model_id == POCKET else path / "README.md"
    licence, text = _readme(readme)
    return _description(
        row=folder.family.name,
        path=path,
        parts=parts,
        configs=folder.configs,
        card=read_card(path, model_id),
        licence=licence,
        text=text,
    )


def _describe_file(path: Path, model_id: str) -> ModelDescription:
    refuse_pickle(path, allowed=False)
    header = read_header(path)
    row = recognise_keys(header.shapes, path)
    parts = [_part_of_file(header, name, prefix) for name, prefix in PREFIXES[row].items()]
    return _description(
        row=row,
        path=path,
        parts=parts,
        configs=infer_configs(row, header.shapes, header.metadata, path),
        card=card_of_metadata(path, model_id, header.metadata),
        licence=header.metadata.get("modelspec.license"),
        text=header.metadata.get("modelspec.description"),
    )


def _description(
    *,
    row: str,
    path: Path,
    parts: list[PartDescription],
    configs: dict[str, dict[str, Any]],
    card: ModelCard,
    licence: str | None,
    text: str | None,
) -> ModelDescription:
    factor = 2 ** (len(configs["vae"].get("block_out_channels", [0])) - 1)
    side = configs["unet"].get("sample_size")
    return ModelDescription(
        id=card.id,
        family=family(row).title,
        path=path,
        parts=tuple(parts),
        native_size=int(side) * factor if side else family(row).native_size,
        prediction_type=configs["scheduler"].get("prediction_type", "epsilon"),
        identifier=card.identifier,
        class_noun=card.class_noun,
        concepts=_concepts(concepts() if card.id == POCKET else path / "concepts.json"),
        licence=licence,
        card=text,
    )


def _part_of_file(header: Header, name: str, prefix: str) -> PartDescription:
    tensors = [info for key, info in header.tensors.items() if key.startswith(prefix)]
    return PartDescription(
        name=name,
        megabytes=sum(info.nbytes for info in tensors) / 1e6,
        parameters=sum(info.numel for info in tensors),
    )


def _parameters(files: list[Path]) -> int | None:
    if any(file.suffix.lower() != SAFE_SUFFIX for file in files):
        return None
    headers = (read_header(file) for file in files)
    return sum(info.numel for header in headers for info in header.tensors.values())


def _concepts(file: Path) -> tuple[str, ...]:
    """The names in a model's list of what it knows, where it has one."""
    listed = (read_json(file) or {}).get("concepts", [])
    return tuple(str(concept["name"]) for concept in listed)


def _readme(readme: Path) -> tuple[str | None, str | None]:
    """The licence that a model's card states in its front matter, and the card's text."""
    if not readme.is_file():
        return None, None
    text = readme.read_text(encoding="utf-8", errors="replace")
    front, body = "", text
    if text.startswith("---\n"):
        front, _, body = text[4:].partition("\n---")
    stated = re.search(r"^license:\s*(.+)$", front, flags=re.MULTILINE)
    return (stated[1].strip() if stated else None), body.strip() or None
