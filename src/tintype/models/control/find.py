"""What a person typed for a ControlNet or the like, to the folder or file that it means."""

from pathlib import Path

from tintype.errors import ModelError, nearest
from tintype.models.control.names import NAMES
from tintype.models.hub.download import OnEvent
from tintype.models.hub.hub import fetch_file
from tintype.models.loading.headers import SAFE_SUFFIX
from tintype.models.loading.locate import HUB_ID

FIELD = "control.model"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
ENCODER_WEIGHTS = "model.safetensors"
CHOICES = (
    "a diffusers folder",
    "a .safetensors file",
    "owner/name",
    "owner/name/path/in/it.safetensors",
)


def find_control(
    name: str, *, offline: bool = False, cache_dir: Path | None = None, on_event: OnEvent = None
) -> Path:
    """The folder or file of `name`, fetched from the hub if it has to be.

    Raises ModelError for a name that means nothing here or on the hub.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    repo, file = _repository(NAMES.get(name, name))
    if repo is None:
        near = nearest(name, NAMES)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(
            f"there is no such file or folder.{hint} Choices: {', '.join((*CHOICES, *NAMES))}.",
            field=FIELD,
            value=name,
        )
    wanted = [CONFIG, WEIGHTS]
    if file is not None:
        encoder = _encoder_of(file)
        wanted = [f"{encoder}/{CONFIG}", f"{encoder}/{ENCODER_WEIGHTS}", file]
    try:
        for one in wanted:
            found = fetch_file(repo, one, offline=offline, cache_dir=cache_dir, on_event=on_event)
    except ModelError as error:
        raise ModelError(error.problem, field=FIELD, value=name) from None
    return found if file is not None else found.parent


def _repository(name: str) -> tuple[str | None, str | None]:
    """owner/name and the file in it, None for the whole; (None, None) for what is no hub id."""
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    if HUB_ID.fullmatch(f"{owner}/{repo}") is None or repo.endswith(SAFE_SUFFIX):
        return None, None
    if file and not file.endswith(SAFE_SUFFIX):
        return None, None
    return f"{owner}/{repo}", file or None


def _encoder_of(file: str) -> str:
    """Where a repository of IP-Adapters keeps the image encoder of one of its files."""
    folder = "models" if "vit-h" in file else str(Path(file).parent)
    return f"{folder}/image_encoder"
