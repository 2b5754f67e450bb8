"""Requests, results and events: the words that every front and every layer share.

All are frozen. A request determines its result: nothing below a front reads settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from tintype.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

SEED_MAX = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]
Precision = Literal["32", "bf16-mixed", "16-mixed"]


class Request(BaseModel):
    """A frozen request whose unknown keys and bad values are errors that name them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        from pydantic import ValidationError

        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(type(self), error) from None

    def replace(self, **changes: Any) -> Self:
        """This request with some fields changed, checked again; what wasn't given stays so."""
        return type(self)(**{**self.model_dump(exclude_unset=True), **changes})


class GenerateRequest(Request):
    """What to draw; a field that isn't given takes the default of the model, where it has one.

    Picture i of a batch is drawn from `seed + i` and equals the single picture of that seed.
    """

    prompt: str
    model: str = "pocket"
    negative_prompt: str = ""
    steps: int = Field(default=30, ge=1, le=1000)
    guidance_scale: float = Field(default=7.5, ge=0, le=100)
    seed: Seed = 0
    num_images: int = Field(default=1, ge=1, le=10_000)
    width: int | None = Field(default=None, ge=8, le=8192)
    height: int | None = Field(default=None, ge=8, le=8192)
    scheduler: str = "ddim"
    eta: float = Field(default=0.0, ge=0, le=1)


class TrainConfig(Request):
    """A DreamBooth run; a field left at None takes the default of its base model.

    `[V]` in a prompt stands for the identifier, `{class_noun}` for the class noun.
    """

    pictures: Path
    class_noun: str = Field(min_length=1)
    model: str = "pocket"
    out: Path | None = None
    identifier: str = "sks"
    instance_prompt: str = "a photo of [V] {class_noun}"
    class_prompt: str = "a photo of a {class_noun}"

    steps: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    seed: Seed = 0
    resolution: int | None = Field(default=None, ge=16)
    train_text_encoder: bool = False
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    center_crop: bool = True
    caption_dropout: float = Field(default=0.0, ge=0, le=1)

    prior_weight: float = Field(default=1.0, ge=0)
    class_dir: Path | None = None
    class_pictures: int | None = Field(default=None, ge=0)
    class_steps: int = Field(default=20, ge=1)
    class_guidance_scale: float = Field(default=7.5, ge=0)

    precision: Precision = "32"
    accumulate: int = Field(default=1, ge=1)
    clip_norm: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = 1
    strategy: str = "auto"

    checkpoint_every: int | None = Field(default=None, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    sample_every: int | None = Field(default=None, ge=0)
    sample_prompts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One unit of a long phase is done: `step` of `total` (None where it isn't known)."""

    phase: str
    step: int
    total: int | None
    message: str = ""
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the person should read once."""

    message: str


@dataclass(frozen=True, kw_only=True)
class GeneratedImage:
    """A finished picture with the request that draws it again, alone."""

    image: "Image"
    request: GenerateRequest
    index: int


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run: its folder, the model in it, and the prompt that draws the subject."""

    out: Path
    model: Path
    steps: int
    instance_prompt: str
    weights_sha256: str


Event = Progress | Note | GeneratedImage | TrainResult


def config_error(model: type[BaseModel], error: Any) -> ConfigError:
    """The first problem of a pydantic ValidationError, in our words."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return ConfigError(
            "no such key", field="config key", value=field, choices=model.model_fields
        )
    if first["type"] == "missing":
        return ConfigError(f"is missing: give {flag(field)}", field=field)
    if first["type"] == "literal_error":
        annotated = first.get("ctx", {}).get("expected", "")
        choices: Sequence[str] = [c.strip(" '") for c in annotated.replace(" or ", ",").split(",")]
        return ConfigError(
            "not one of the choices", field=field, value=first["input"], choices=choices
        )
    message = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(message, field=field, value=first["input"])


def flag(field: str) -> str:
    """The command-line flag of a field: "class_noun" -> "--class-noun"."""
    return "--" + field.replace("_", "-")
