"""What long work tells while it runs, and what it ends with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.types.generate import GenerateRequest

if TYPE_CHECKING:
    from PIL.Image import Image


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
class Preview:
    """Picture `index` as it looks after `step` of `total` evaluations, without its noise."""

    image: "Image"
    index: int
    step: int
    total: int


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run: its folder, the model in it, and the prompt that draws the subject."""

    out: Path
    model: Path
    steps: int
    instance_prompt: str
    weights_sha256: str


Event = Progress | Note | GeneratedImage | Preview | TrainResult
