"""What to convert, merge and publish."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tintype.types.base import Request

ModelPrecision = Literal["fp32", "fp16", "bf16", "fp8"]


class ConvertRequest(Request):
    """A model, an adapter or an embedding, to another layout or precision.

    `source` is whatever `--model` takes, or an adapter's or embedding's file or folder. Without
    `to`, the name of `out` says the layout; without `dtype`, tensors stay as they are stored.
    `pruned` leaves out what draws nothing. `model` is what an adapter or embedding is for, where
    that isn't a standard model of its family; `token` the word of an embedding.
    """

    source: str
    out: Path
    to: str | None = None
    dtype: ModelPrecision | None = None
    pruned: bool = False
    force: bool = False
    model: str | None = None
    token: str | None = None


class MergeRequest(Request):
    """Models or adapters into one: each of `sources` is NAME, NAME:0.3 or NAME:unet=0.3,….

    With `minus`, what the further models have over that one is added to the first. `rank` is that
    of merged adapters, by singular values.
    """

    out: Path
    sources: tuple[str, ...] = Field(min_length=1)
    minus: str | None = None
    rank: int | None = Field(default=None, ge=1)
    to: str | None = None
    dtype: ModelPrecision | None = None
    force: bool = False
    model: str | None = None


class PushRequest(Request):
    """A run, a model, an adapter or an embedding, to `repo` ("owner/name") on the model hub."""

    source: str
    repo: str
    private: bool = False
    dry_run: bool = False
