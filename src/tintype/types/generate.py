"""What to draw."""

from pydantic import Field

from tintype.types.base import Request, Seed


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
    s_churn: float = Field(default=0.0, ge=0)
    s_tmin: float = Field(default=0.0, ge=0)
    s_tmax: float | None = Field(default=None, gt=0)
    s_noise: float = Field(default=1.0, ge=0)
