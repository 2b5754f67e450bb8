"""`tintype upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from tintype import console
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types.upscale import UpscaleRequest


def upscale(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE")],
    scale: Annotated[float, typer.Option(help="How many times as large, up to 8.")] = 2.0,
    upscaler: Annotated[str, typer.Option(help="lanczos, bicubic or nearest.")] = "lanczos",
    out: Annotated[Path | None, typer.Option(help="Where pictures go; outputs.")] = None,
) -> None:
    """Make pictures larger; what they say of how they were drawn is kept."""
    request = UpscaleRequest(pictures=tuple(pictures), scale=scale, upscaler=upscaler)
    for path in Service(load_settings(out_dir=out)).upscale(request):
        console.out.print(str(path), markup=False)
