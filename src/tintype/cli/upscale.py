"""`tintype upscale`."""

from pathlib import Path
from typing import Annotated

import typer

from tintype import console
from tintype.cli.flags import DeviceFlag, PickleFlag
from tintype.errors import ConfigError
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types.upscale import UpscaleRequest


def upscale(
    pictures: Annotated[list[str] | None, typer.Argument(metavar="PICTURE")] = None,
    scale: Annotated[float, typer.Option(help="How many times as large, up to 8.")] = 2.0,
    upscaler: Annotated[
        str,
        typer.Option("--with", "--upscaler", metavar="NAME", help="One of --list, or a file."),
    ] = "lanczos",
    list_: Annotated[bool, typer.Option("--list", help="List the upscalers.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where pictures go; outputs.")] = None,
    device: DeviceFlag = None,
    allow_pickle: PickleFlag = None,
) -> None:
    """Make pictures larger; what they say of how they were drawn is kept."""
    service = Service(load_settings(out_dir=out, device=device, allow_pickle=allow_pickle))
    if list_:
        console.show_rows(service.upscalers())
        return
    if not pictures:
        raise ConfigError("PICTURE is missing (or --list to see the upscalers)")
    request = UpscaleRequest(pictures=tuple(pictures), scale=scale, upscaler=upscaler)
    for path in service.upscale(request):
        console.out.print(str(path), markup=False)
