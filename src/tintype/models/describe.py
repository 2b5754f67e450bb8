"""What a model is, told from headers and configs alone: no weights are read, torch isn't needed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tintype.errors import ModelError
from tintype.models.card import ModelCard, card_of_metadata, read_card, read_json
from tintype.models.families.predicts import prediction_type
from tintype.models.families.registry import family
from tintype.models.inspect import FileDescription, inspect, size_text
from tintype.models.loading.find import find
from tintype.models.loading.folder import read_folder, weights_files
from tintype.models.loading.headers import SAFE_SUFFIX, Header, read_header, refuse_pickle
from tintype.models.loading.infer import infer_configs
from tintype.models.loading.locate import POCKET
from tintype.models.loading.prefixes import UNET, VAE
from tintype.models.loading.recognise import recognise_keys
from tintype.models.personal.card import PersonalCard, base_of, personal_card
from tintype.models.presets import Preset
from tintype.models.sharing.readme import read_readme, readme_of
from tintype.pocket import concepts


@dataclass(frozen=True, kw_only=True)
class PartDescription:
    """One part: its size on disk in MB (10^6 bytes), and its parameters (None for a pickle)."""

    name: str
    megabytes: float
    parameters: int | None


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What `tintype models show` says; `native_size` is a side in pixels.

    `base` and `adds` are those of a personal model: the model that it is put on, and what is.
    """

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
    extra_channels: int = 0
    preset: Preset | None = None
    base: str | None = None
    adds: str | None = None

    @property
    def megabytes(self) -> float:
        return sum(part.megabytes for part in self.parts)

    @property
    def parameters(self) -> int:
        return sum(part.parameters or 0 for part in self.parts)

    def rows(self) -> dict[str, str]:
        """What there is to say, by what it is about; what is empty needn't be shown."""
        subject = f"[V] {self.class_noun} (identifier {self.identifier})"
        rows = {
            "model": self.id,
            "family": self.family + (" for inpainting" if self.extra_channels else ""),
            "files": str(self.path),
            "native size": f"{self.native_size}x{self.native_size} px",
            "prediction": self.prediction_type,
            "subject": subject if self.class_noun else "",
            "licence": self.licence or "",
            "knows": ", ".join(self.concepts),
            "in all": size_text(self.megabytes, self.parameters),
        }
        rows |= {part.name: size_text(part.megabytes, part.parameters) for part in self.parts}
        return rows | (self.preset.rows() if self.preset else {})


def describe(
    model: str | Path, *, allow_pickle: bool = False, cache_dir: Path | None = None
) -> ModelDescription:
    """Describe what `load` would load; of the hub, only what lies in its cache already.

    Raises the errors of `load`, but for those in the tensors' values.
    """
    found = find(model, offline=True, allow_pickle=allow_pickle, cache_dir=cache_dir)
    own = None if found.is_file else personal_card(found.path)
    if own is not None:
        base = describe(base_of(own), allow_pickle=allow_pickle, cache_dir=cache_dir)
        return _describe_personal(base, own, found.id)
    if found.is_file:
        told = _describe_file(found.path, found.id)
    else:
        told = _describe_folder(found.path, found.id, allow_pickle)
    if found.preset is None:
        return told
    return replace(told, preset=found.preset, licence=told.licence or found.preset.licence)


def _describe_personal(
    base: ModelDescription, own: PersonalCard, model_id: str
) -> ModelDescription:
    """The base model, and what the folder adds to it."""
    card = read_card(own.folder, model_id)
    parts = [
        PartDescription(
            name=file.name,
            megabytes=file.stat().st_size / 1e6,
            parameters=_parameters([file]),
        )
        for file in own.files
    ]
    return replace(
        base,
        id=model_id,
        path=own.folder,
        parts=(*base.parts, *parts),
        identifier=card.identifier,
        class_noun=card.class_noun,
        base=own.base_model,
        adds=own.adds,
    )


def describe_any(
    model: str | Path, *, allow_pickle: bool = False, cache_dir: Path | None = None
) -> ModelDescription | FileDescription:
    """`describe`, or what any other safetensors file holds: an adapter, an embedding, a part."""
    path = Path(model).expanduser()
    if path.suffix.lower() == SAFE_SUFFIX and path.is_file():
        try:
            recognise_keys(read_header(path).shapes, path)
        except ModelError:
            return inspect(path)
    return describe(model, allow_pickle=allow_pickle, cache_dir=cache_dir)


def _describe_folder(path: Path, model_id: str, allow_pickle: bool) -> ModelDescription:
    folder = read_folder(path)
    parts = []
    for name in folder.parts:
        files = weights_files(folder.place(name), allow_pickle=allow_pickle)
        parts.append(
            PartDescription(
                name=name,
                megabytes=sum(file.stat().st_size for file in files) / 1e6,
                parameters=_parameters(files),
            )
        )
    licence, text = read_readme(readme_of(path))
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
    texts = {spec.folder: spec.prefix for spec in family(row).text_encoders}
    prefixes = {"unet": UNET, "vae": VAE, **texts}
    parts = [_part_of_file(header, name, prefix) for name, prefix in prefixes.items()]
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
        prediction_type=prediction_type(configs["scheduler"]),
        extra_channels=configs["unet"].get("in_channels", 4)
        - configs["unet"].get("out_channels", 4),
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
