"""What a person typed for a ControlNet or the like, to the folder or file that it means."""

from pathlib import Path

from tintype import pocket
from tintype.errors import ModelError, nearest
from tintype.models.control.names import NAMES
from tintype.models.hub.download import OnEvent
from tintype.models.hub.hub import fetch_file
from tintype.models.loading.headers import (
    PICKLE_SUFFIXES,
    SAFE_SUFFIX,
    read_header,
    refuse_pickle,
)
from tintype.models.loading.locate import HUB_ID

FIELD, DETECTOR_FIELD = "control.model", "control.detector"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
ENCODER_WEIGHTS = "model.safetensors"
DETECTOR_FILES = (CONFIG, "preprocessor_config.json", "model.safetensors")
IP_TENSORS = "ip_adapter."
CHOICES = (
    "a diffusers folder",
    "a .safetensors file",
    "owner/name",
    "owner/name/path/in/it.safetensors",
)


def find_control(
    name: str,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    cache_dir: Path | None = None,
    on_event: OnEvent = None,
) -> Path:
    """The folder or file of `name`, fetched from the hub if it has to be.

    Raises ModelError for a name that means nothing here or on the hub, WeightsError for a pickle
    on the hub that isn't allowed.
    """
    embedded = pocket.controls().get(name)
    if embedded is not None:
        return embedded
    path = Path(name).expanduser()
    if path.exists():
        return path
    repo, file = _repository(NAMES.get(name, name))
    if repo is None:
        short = (*pocket.controls(), *NAMES)
        near = nearest(name, short)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(
            f"there is no such file or folder.{hint} Choices: {', '.join((*CHOICES, *short))}.",
            field=FIELD,
            value=name,
        )

    def fetched(one: str) -> Path:
        return fetch_file(repo, one, offline=offline, cache_dir=cache_dir, on_event=on_event)

    try:
        if file is None:
            fetched(CONFIG)
            return fetched(WEIGHTS).parent
        refuse_pickle(Path(file), allowed=allow_pickle)
        found = fetched(file)
        if _is_ip_adapter(found):
            for one in (CONFIG, ENCODER_WEIGHTS):
                fetched(f"{_encoder_of(file)}/{one}")
    except ModelError as error:
        raise type(error)(error.problem, field=FIELD, value=name) from None
    return found


def find_detector(
    name: str, *, offline: bool = False, cache_dir: Path | None = None, on_event: OnEvent = None
) -> Path:
    """The folder of a model that finds depth, poses or people: a folder, or one of the hub.

    Raises ModelError for a name that means nothing here or on the hub.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or HUB_ID.fullmatch(name) is None:
        raise ModelError(
            "is no folder of a model of transformers, and no owner/name on the hub",
            field=DETECTOR_FIELD,
            value=name,
        )
    try:
        found = [
            fetch_file(name, one, offline=offline, cache_dir=cache_dir, on_event=on_event)
            for one in DETECTOR_FILES
        ]
    except ModelError as error:
        raise ModelError(error.problem, field=DETECTOR_FIELD, value=name) from None
    return found[0].parent


def _repository(name: str) -> tuple[str | None, str | None]:
    """owner/name and the file in it, None for the whole; (None, None) for what is no hub id."""
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    suffixes = (SAFE_SUFFIX, *PICKLE_SUFFIXES)
    if HUB_ID.fullmatch(f"{owner}/{repo}") is None or repo.endswith(suffixes):
        return None, None
    if file and not file.endswith(suffixes):
        return None, None
    return f"{owner}/{repo}", file or None


def _is_ip_adapter(file: Path) -> bool:
    """Whether a file needs an image encoder beside it; of a pickle its name decides."""
    if file.suffix.lower() != SAFE_SUFFIX:
        return "ip-adapter" in file.name
    return any(name.startswith(IP_TENSORS) for name in read_header(file).tensors)


def _encoder_of(file: str) -> str:
    """Where a repository of IP-Adapters keeps the image encoder of one of its files."""
    folder = "models" if "vit-h" in file else str(Path(file).parent)
    return f"{folder}/image_encoder"
