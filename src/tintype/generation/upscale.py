"""Pictures made larger: before a second pass, or by themselves."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.nn import functional

from tintype.errors import ConfigError, InputError
from tintype.generation.images import LARGEST_SIDE, copy_png
from tintype.generation.sources import open_picture
from tintype.types import UpscaleRequest

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


def check_upscaler(
    name: str, *, field: str = "hires.upscaler", among: Iterable[str] = UPSCALERS
) -> None:
    """Raises ConfigError with the choices for a name that isn't one."""
    if name not in among:
        raise ConfigError("no such upscaler", field=field, value=name, choices=among)


def upscale(request: UpscaleRequest, folder: Path) -> Iterator[Path]:
    """Write each picture, enlarged, as `STEM-SCALEx.png` in `folder` (made if missing).

    The request that it carries stays in it; no file is replaced. Raises PictureError for what is
    no picture, InputError for a side past the largest.
    """
    check_upscaler(request.upscaler, field="upscaler", among=PICTURE)
    return (_upscaled(Path(one), request, folder) for one in request.pictures)


def _upscaled(path: Path, request: UpscaleRequest, folder: Path) -> Path:
    picture = open_picture(str(path), field="picture")
    width, height = (round(side * request.scale) for side in picture.size)
    if max(width, height) > LARGEST_SIDE:
        raise InputError(
            f"would make {path} {width}x{height} px, and {LARGEST_SIDE} a side is the most",
            field="scale",
            value=request.scale,
        )
    [larger] = enlarged([picture], (width, height), request.upscaler)
    return copy_png(larger, path, folder, f"{path.stem}-{request.scale:g}x")


def enlarged(
    pictures: Sequence[Image.Image], size: tuple[int, int], name: str
) -> list[Image.Image]:
    """Pictures at another `size` (width, height in px)."""
    return [picture.resize(size, PICTURE[name]) for picture in pictures]


def enlarged_latents(latents: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Latents [batch, channels, …] at another `size` (width, height in latents)."""
    mode, smoothed = LATENT[name]
    return functional.interpolate(latents, size=size[::-1], mode=mode, antialias=smoothed)
