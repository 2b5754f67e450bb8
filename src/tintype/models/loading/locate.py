"""What a person typed for a model, to the folder or file that it means."""

import re
from dataclasses import dataclass
from pathlib import Path

from tintype import pocket
from tintype.errors import ModelError, WeightsError, nearest
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header
from tintype.models.loading.recognise import Shapes, adapter_alone, recognise_keys
from tintype.models.personal.card import personal_card
from tintype.models.presets import PRESETS, preset

POCKET = "pocket"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CHOICES = (
    *pocket.models(),
    "a preset (tintype models list)",
    "a diffusers folder",
    "a run folder",
    "a .safetensors file",
    "owner/name",
)


@dataclass(frozen=True, kw_only=True)
class Location:
    """A model's files; `is_file` for one file in the original layout, else a diffusers folder."""

    id: str
    path: Path
    is_file: bool = False


def locate(model: str | Path) -> Location | None:
    """The local files that `model` names, or None if it can only be a preset or a hub id.

    Raises ModelError for a name that is nothing at all, and for a folder that is no model.
    """
    text = str(model)
    embedded = pocket.models().get(text)
    if embedded is not None:
        return Location(id=text, path=embedded)
    path = Path(text).expanduser()
    if path.is_dir():
        return Location(id=text, path=_folder(path))
    if path.is_file():
        return Location(id=text, path=path, is_file=True)
    if isinstance(model, str) and (preset(text) or looks_like_hub_id(text)):
        return None
    raise unknown(text)


def place_of(source: str | Path) -> Path | None:
    """The file or folder that `source` names, of a run its result; None for a model's name."""
    path = Path(source).expanduser()
    if not path.exists():
        return None
    run = path / "model"
    return run if run.is_dir() and not (path / "unet").is_dir() else path


def looks_like_hub_id(text: str) -> bool:
    """owner/name, where no folder `owner` lies here and `name` isn't a weights file."""
    suffix = Path(text).suffix.lower()
    return (
        HUB_ID.fullmatch(text) is not None
        and suffix not in (SAFE_SUFFIX, *PICKLE_SUFFIXES)
        and not Path(text).parent.is_dir()
    )


def unknown(text: str) -> ModelError:
    """The error for a name that is no model: what was tried, the nearest names, the choices."""
    path = Path(text).expanduser()
    siblings = []
    if path.parent.is_dir():
        siblings = [str(path.parent / entry.name) for entry in path.parent.iterdir()]
    near = nearest(text, [*pocket.models(), *PRESETS, *siblings])
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return ModelError(
        f"there is no such model: it isn't {POCKET!r}, and no file or folder lies at "
        f"{path.absolute()}.{hint} Choices: {', '.join(CHOICES)}.",
        field="model",
        value=text,
    )


def _folder(path: Path) -> Path:
    """The diffusers folder in, or at, `path`."""
    if any(path.glob("*/adapter_config.json")):
        raise adapter_alone("peft's folders", path)
    for folder in (path, path / "model"):
        if (folder / "model_index.json").is_file() or (folder / "unet").is_dir():
            return folder
        if personal_card(folder) is not None:
            return folder
    if (path / "config.yaml").is_file() or (path / "checkpoints").is_dir():
        raise ModelError(
            f"is a run that has no model yet; finish it with: tintype train --resume {path}",
            field="model",
            value=str(path),
        )
    files = sorted(p for p in path.glob("*") if p.suffix.lower() == SAFE_SUFFIX)
    if (path / "adapter_config.json").is_file() or len(files) == 1:
        _refuse_part(files, path)
        raise ModelError(
            f"is a folder; name the file in it: {files[0]}", field="model", value=str(path)
        )
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
    raise ModelError(
        f"is no model folder: found {inside}; expected model_index.json, or model/ of a run",
        field="model",
        value=str(path),
    )


def _refuse_part(files: list[Path], path: Path) -> None:
    """Raises WeightsError if the one file of a folder is a part of a model or an adapter."""
    if not files:
        raise WeightsError(
            "found an adapter without its weights; expected a model", field="model", value=str(path)
        )
    shapes: Shapes = read_header(files[0]).shapes
    recognise_keys(shapes, files[0])
