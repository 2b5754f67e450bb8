"""What a request may say beside its prompt: pictures to begin from, second passes, guidance."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tintype.types.base import Request, Seed

Hint = Literal["pose", "depth", "soft", "lines", "normal", "segments", "tile", "inpaint"]


class MaskOptions(Request):
    """How a mask is used: white is drawn anew, black is kept.

    `blur` and `padding` are in px of the picture; `fill` is what lies under the mask before
    drawing; `region: masked` draws the masked part alone, at the full size of the request.
    """

    blur: float = Field(default=4.0, ge=0, le=256)
    invert: bool = False
    fill: Literal["original", "blur", "noise", "zeros"] = "original"
    region: Literal["whole", "masked"] = "whole"
    padding: int = Field(default=32, ge=0, le=1024)


class OutpaintOptions(Request):
    """How far a picture is continued at each side, in px."""

    left: int = Field(default=0, ge=0, le=2048)
    right: int = Field(default=0, ge=0, le=2048)
    top: int = Field(default=0, ge=0, le=2048)
    bottom: int = Field(default=0, ge=0, le=2048)

    @property
    def wanted(self) -> bool:
        """Whether any side is continued."""
        return any((self.left, self.right, self.top, self.bottom))


class VariationOptions(Request):
    """Noise part of the way from the request's seed to another: 0 is the former, 1 the latter."""

    seed: Seed = 0
    strength: float = Field(default=0.0, ge=0, le=1)


class HiresOptions(Request):
    """A second pass over the enlarged picture; `steps` None means as many as the first.

    `upscaler` is the name of one, or an upscaler file.
    """

    scale: float = Field(default=2.0, gt=1, le=8)
    upscaler: str = "lanczos"
    strength: float = Field(default=0.5, gt=0, le=1)
    steps: int | None = Field(default=None, ge=1, le=1000)


class ControlOptions(Request):
    """A picture that leads the drawing through a ControlNet, a T2I-Adapter or an IP-Adapter.

    What `model` is decides which; `image` None is the picture that the request begins from.
    `start` and `end` are fractions of the steps taken. `mode` says which weighs more in a
    ControlNet; `control` gives the prompt less to say in the shallow layers, `prompt` the picture.
    `hint` says what the picture is, for a ControlNet union (None: what the preprocessor makes).
    `encoder` is the folder of an IP-Adapter's image encoder, where that doesn't lie beside it.
    `detector` is the folder or hub id of the network that the preprocessors `depth` and `pose`
    look with, `people` that of one that finds the people for `pose` (None: the picture shows one).
    """

    model: str
    image: str | None = None
    preprocessor: str = "none"
    weight: float = Field(default=1.0, ge=0, le=2)
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    mode: Literal["balanced", "prompt", "control"] = "balanced"
    hint: Hint | None = None
    encoder: str | None = None
    detector: str | None = None
    people: str | None = None

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end comes before start")
        return self


class GuidanceOptions(Request):
    """Guidance beyond its scale.

    `rescale` as in arXiv:2305.08891; `start` and `end` are the fractions of the steps between
    which there is guidance (arXiv:2404.07724), and outside them half the work is saved;
    `perturbed_attention` is the scale of arXiv:2403.17377; `perpendicular` is how much of the
    negative prompt's part that the prompt doesn't share is taken away (arXiv:2304.04968; 0: the
    usual negative prompt); `freeu` is (s1, s2, b1, b2) of arXiv:2309.11497.
    """

    rescale: float = Field(default=0.0, ge=0, le=1)
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    perturbed_attention: float = Field(default=0.0, ge=0, le=20)
    perpendicular: float = Field(default=0.0, ge=0, le=10)
    freeu: tuple[float, float, float, float] | None = None

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end comes before start")
        return self
