"""Pictures made larger: before a second pass, or by themselves."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tintype.errors import ConfigError, InputError
from tintype.generation.images import LARGEST_SIDE, copy_png
from tintype.generation.kept import Kept, file_key
from tintype.generation.library import Library
from tintype.generation.sources import open_picture
from tintype.models.upscalers.load import load_upscaler
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
NO_LIBRARY = Library()
CPU = torch.device("cpu")

Enlarge = Callable[[Image.Image, tuple[int, int]], Image.Image]


def check_upscaler(
    name: str,
    library: Library = NO_LIBRARY,
    *,
    field: str = "hires.upscaler",
    among: Iterable[str] = UPSCALERS,
) -> None:
    """Raises ConfigError with the choices for a name that isn't one, and no file either."""
    if name not in among and library.upscaler(name) is None:
        raise ConfigError(
            "no such upscaler",
            field=field,
            value=name,
            choices=(*among, *library.upscaler_names, "an upscaler file"),
        )


def enlarger(
    name: str,
    library: Library = NO_LIBRARY,
    *,
    device: torch.device = CPU,
    kept: Kept | None = None,
) -> Enlarge:
    """What brings an RGB picture to a size (width, height in px), by the name of an upscaler.

    A network is loaded unless it is in `kept`. Raises ConfigError for an unknown name, and what
    `load_upscaler` raises.
    """
    if name in PICTURE:
        return lambda picture, size: picture.resize(size, PICTURE[name])
    check_upscaler(name, library, among=PICTURE)
    path = library.upscaler(name)
    assert path is not None, "it was checked"
    return (
        (kept or Kept())
        .get(
            ("upscaler", file_key(path), device),
            lambda: load_upscaler(path, device=device, allow_pickle=library.allow_pickle),
        )
        .to_size
    )


def upscale(
    request: UpscaleRequest,
    folder: Path,
    *,
    library: Library = NO_LIBRARY,
    device: torch.device = CPU,
    kept: Kept | None = None,
) -> Iterator[Path]:
    """Write each picture, enlarged, as `STEM-SCALEx.png` in `folder` (made if missing).

    The request that it carries stays in it; no file is replaced. Raises PictureError for what is
    no picture, InputError for a side past the largest, and what `enlarger` raises.
    """
    check_upscaler(request.upscaler, library, field="upscaler", among=PICTURE)
    enlarge = enlarger(request.upscaler, library, device=device, kept=kept)
    return (_upscaled(Path(one), request, folder, enlarge) for one in request.pictures)


def _upscaled(path: Path, request: UpscaleRequest, folder: Path, enlarge: Enlarge) -> Path:
    picture = open_picture(str(path), field="picture")
    width, height = (round(side * request.scale) for side in picture.size)
    if max(width, height) > LARGEST_SIDE:
        raise InputError(
            f"would make {path} {width}x{height} px, and {LARGEST_SIDE} a side is the most",
            field="scale",
            value=request.scale,
        )
    larger = enlarge(picture, (width, height))
    return copy_png(larger, path, folder, f"{path.stem}-{request.scale:g}x")


def enlarged_latents(latents: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Latents [batch, channels, …] at another `size` (width, height in latents)."""
    mode, smoothed = LATENT[name]
    return functional.interpolate(latents, size=size[::-1], mode=mode, antialias=smoothed)
