"""What long work tells while it runs, and what it ends with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.types.generate import GenerateRequest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One unit of a long phase is done: `step` of `total` (None where it isn't known).

    Of training also: the smoothed `loss`, `per_second` steps, and the `memory` in use in bytes (on
    a GPU the most that was).
    """

    phase: str
    step: int
    total: int | None
    message: str = ""
    loss: float | None = None
    per_second: float | None = None
    memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the person should read once."""

    message: str


@dataclass(frozen=True, kw_only=True)
class GeneratedImage:
    """A finished picture with the request that draws it again, alone.

    `hashes` are the short ones of the adapters and embeddings in it: kind -> name -> hash.
    """

    image: "Image"
    request: GenerateRequest
    index: int
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


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
