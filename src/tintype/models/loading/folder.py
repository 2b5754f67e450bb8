"""A diffusers folder: its configs, and which files hold the weights of each part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tintype import pocket
from tintype.errors import WeightsError
from tintype.models.card import SIDECAR, read_json
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, refuse_pickle
from tintype.models.loading.recognise import missing_part, recognise_configs

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"


PARTS_OF = "parts_of"  # in tintype.json: the embedded model whose parts stand for missing ones


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A recognised diffusers folder; `configs` by part: unet, vae, the text encoders, scheduler."""

    path: Path
    family: Family
    index: dict[str, Any]
    configs: dict[str, dict[str, Any]]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have weights, in a fixed order."""
        return ("unet", "vae", *(spec.folder for spec in self.family.text_encoders))

    def place(self, part: str) -> Path:
        """The folder of a part, or of a tokenizer."""
        return _place(self.path, part)


def read_folder(path: Path) -> Folder:
    """Recognise a diffusers folder from its configs alone.

    A folder whose `tintype.json` names an embedded model as `parts_of` needs only the parts that
    differ from that model's. Raises WeightsError for a config that doesn't parse, a missing part,
    another family.
    """
    index = read_json(_place(path, "model_index.json")) or {}
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "transformer", "prior")
    found = {name: read_json(_place(path, name) / "config.json") for name in names}
    row = family(recognise_configs({"model_index": index, **found}, path))
    file = _place(path, "scheduler") / "scheduler_config.json"
    scheduler = read_json(file)
    if scheduler is None:
        raise missing_part("scheduler", path, str(file))
    for spec in row.text_encoders:
        if not _place(path, spec.tokenizer).is_dir():
            raise missing_part(spec.tokenizer, path)
    configs = {name: config for name, config in found.items() if config is not None}
    return Folder(path=path, family=row, index=index, configs={**configs, "scheduler": scheduler})


def parts_of(path: Path) -> Path | None:
    """The folder of the embedded model whose parts stand for those that are missing at `path`."""
    return pocket.models().get(str((read_json(path / SIDECAR) or {}).get(PARTS_OF)))


def _place(path: Path, part: str) -> Path:
    other = None if (path / part).exists() else parts_of(path)
    return (other or path) / part


def weights_files(part: Path, *, allow_pickle: bool) -> list[Path]:
    """The files of one part's weights: plain before variants (fp16), safetensors before pickles.

    Raises WeightsError if there are none, if there are only pickles and they aren't allowed,
    and for a shard that is missing.
    """
    for stem in (DIFFUSERS_STEM, TRANSFORMERS_STEM):
        for infix in ("", ".fp16"):
            whole = part / f"{stem}{infix}{SAFE_SUFFIX}"
            if whole.is_file():
                return [whole]
            for index in (f"{whole.name}.index.json", f"{stem}{SAFE_SUFFIX}.index{infix}.json"):
                if (part / index).is_file():
                    return _shards(part / index)
    others = sorted(part.glob(f"*{SAFE_SUFFIX}"))
    if len(others) == 1:
        return others
    pickles = sorted(p for p in part.glob("*") if p.suffix.lower() in PICKLE_SUFFIXES)
    for index_file in sorted(part.glob("*.bin.index.json")):
        pickles = _shards(index_file)
    plain = [p for p in pickles if ".fp16." not in p.name] or pickles
    for pickled in plain:
        refuse_pickle(pickled, allowed=allow_pickle)
    if not plain:
        raise missing_part(f"weights of {part.name}", part, f"a {SAFE_SUFFIX} file in {part}")
    return plain


def _shards(index: Path) -> list[Path]:
    names = sorted(set((read_json(index) or {}).get("weight_map", {}).values()))
    files = [index.parent / Path(name).name for name in names]
    for file in files:
        if not file.is_file():
            raise WeightsError(
                f"names the shard {file.name}, which is missing", field="weights", value=str(index)
            )
    if not files:
        raise WeightsError("names no shards", field="weights", value=str(index))
    return files
