"""What to draw."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tintype.types.base import Request, Seed
from tintype.types.modes import (
    ControlOptions,
    GuidanceOptions,
    HiresOptions,
    MaskOptions,
    OutpaintOptions,
    VariationOptions,
)

SIDE_MAX = 2048


class GenerateRequest(Request):
    """What to draw; a field that isn't given takes the default of the model, where it has one.

    Picture i of a batch is drawn from `seed + i` and equals the single picture of that seed; with
    a variation, `seed` stays and the variation's seed counts.
    `clip_skip` counts the text encoder's layers from the end, as A1111 does (1 = the last);
    `styles` are names, `adapters` "NAME[:WEIGHT]", where a name may be a path. `aspect` ("3:2")
    picks the model's size of that shape; `quality` adds the quality tags of the model's preset.

    `image` and `mask` are paths or data: URIs. `strength` is how much of `image` is drawn anew: 0
    gives it back, 1 sees nothing of it; `noise_multiplier` makes the noise on it weaker or
    stronger. `refiner` is a model that draws the last part of the steps, from `refiner_at` on.
    `tiling` makes opposite edges meet. A preview is told every `preview_every` steps; 0: never.
    `vae_tiling` has the VAE work by tiles that overlap, to save memory: `auto`, on large pictures.
    """

    prompt: str
    model: str = "pocket"
    negative_prompt: str = ""
    steps: int = Field(default=30, ge=1, le=1000)
    guidance_scale: float = Field(default=7.5, ge=0, le=100)
    seed: Seed = 0
    num_images: int = Field(default=1, ge=1, le=10_000)
    width: int | None = Field(default=None, ge=8, le=SIDE_MAX)
    height: int | None = Field(default=None, ge=8, le=SIDE_MAX)
    aspect: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?:\d+(\.\d+)?$")
    scheduler: str = "ddim"
    eta: float = Field(default=0.0, ge=0, le=1)
    s_churn: float = Field(default=0.0, ge=0)
    s_tmin: float = Field(default=0.0, ge=0)
    s_tmax: float | None = Field(default=None, gt=0)
    s_noise: float = Field(default=1.0, ge=0)
    quality: bool = False
    clip_skip: int | None = Field(default=None, ge=1, le=24)
    styles: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()

    image: str | None = None
    strength: float = Field(default=0.75, ge=0, le=1)
    noise_multiplier: float = Field(default=1.0, ge=0, le=2)
    mask: str | None = None
    inpaint: MaskOptions = MaskOptions()
    outpaint: OutpaintOptions = OutpaintOptions()
    variation: VariationOptions = VariationOptions()
    hires: HiresOptions | None = None
    refiner: str | None = None
    refiner_at: float = Field(default=0.8, gt=0, lt=1)
    tiling: Literal["none", "x", "y", "both"] = "none"
    control: tuple[ControlOptions, ...] = ()
    guidance: GuidanceOptions = GuidanceOptions()
    preview_every: int = Field(default=0, ge=0)
    vae_tiling: Literal["auto", "always", "never"] = "auto"

    @model_validator(mode="after")
    def _size_told_once(self) -> Self:
        if self.aspect is not None and (self.width is not None or self.height is not None):
            raise ValueError("aspect is given together with a width or height: use one or other")
        return self

    def picture(self, i: int) -> Self:
        """The request that draws picture i of this one alone."""
        if self.variation.strength:
            varied = {"seed": self.variation.seed + i, "strength": self.variation.strength}
            return self.replace(num_images=1, variation=varied)
        return self.replace(seed=self.seed + i, num_images=1)
