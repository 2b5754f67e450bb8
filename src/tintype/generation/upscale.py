"""Pictures made larger before a second pass."""

from collections.abc import Sequence

from PIL import Image
from PIL.Image import Image as Picture
from torch import Tensor
from torch.nn import functional

from tintype.errors import ConfigError

PICTURE = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
# torch's mode, and whether it is smoothed before
LATENT = {
    "latent": ("bilinear", False),
    "latent-antialiased": ("bilinear", True),
    "latent-bicubic": ("bicubic", False),
    "latent-nearest": ("nearest-exact", False),
}
UPSCALERS = (*PICTURE, *LATENT)


def check_upscaler(name: str) -> None:
    """Raises ConfigError with the choices for a name that isn't one."""
    if name not in UPSCALERS:
        raise ConfigError("no such upscaler", field="hires.upscaler", value=name, choices=UPSCALERS)


def enlarged(
    pictures: Sequence[Image.Image], size: tuple[int, int], name: str
) -> list[Image.Image]:
    """Pictures at another `size` (width, height in px)."""
    return [picture.resize(size, PICTURE[name]) for picture in pictures]


def enlarged_latents(latents: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Latents [batch, channels, …] at another `size` (width, height in latents)."""
    mode, smoothed = LATENT[name]
    return functional.interpolate(latents, size=size[::-1], mode=mode, antialias=smoothed)
