"""What to enlarge."""

from pydantic import Field

from tintype.types.base import Request


class UpscaleRequest(Request):
    """Pictures (paths) to make `scale` times as large with the picture upscaler of that name, or
    an upscaler file."""

    pictures: tuple[str, ...] = Field(min_length=1)
    scale: float = Field(default=2.0, gt=1, le=8)
    upscaler: str = "lanczos"
