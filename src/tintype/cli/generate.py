"""`tintype generate` and `tintype schedulers`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tintype import console
from tintype.cli.flags import DeviceFlag, ModelFlag, OfflineFlag, PickleFlag
from tintype.errors import ConfigError
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types import GeneratedImage, GenerateRequest


def generate(
    prompt: Annotated[str | None, typer.Argument(help="[V] is the subject's identifier.")] = None,
    model: ModelFlag = None,
    negative: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; 30.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 7.5.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; 0.")] = None,
    number: Annotated[int | None, typer.Option("-n", "--number", help="Pictures; 1.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, as 512x512.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="See: tintype schedulers.")] = None,
    like: Annotated[Path | None, typer.Option(help="Repeat this picture's request.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where pictures go; outputs.")] = None,
    device: DeviceFlag = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Draw pictures from a prompt."""
    from tintype.generation.images import read_request, save

    settings = load_settings(device=device, allow_pickle=allow_pickle, offline=offline, out_dir=out)
    fields: dict[str, Any] = {
        "prompt": prompt, "model": model, "negative_prompt": negative, "steps": steps,
        "guidance_scale": guidance, "seed": seed, "num_images": number, "scheduler": scheduler,
    }  # fmt: skip
    fields = {name: value for name, value in fields.items() if value is not None}
    if size is not None:
        fields["width"], fields["height"] = _size(size)
    if like is None and prompt is None:
        raise ConfigError("PROMPT is missing (or --like PICTURE to repeat one)")
    request = read_request(like).replace(**fields) if like else GenerateRequest(**fields)
    with console.ProgressView() as view:
        for event in Service(settings).generate(request, emit=view):
            view(event)
            if isinstance(event, GeneratedImage):
                console.out.print(str(save(event, settings.out_dir)), markup=False)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError("is not WIDTHxHEIGHT in pixels, as 512x512", field="--size", value=text)
    return int(width), int(height)


def schedulers() -> None:
    """List the schedulers: name, A1111's name, other names."""
    from tintype.schedulers import ROWS

    console.show_schedulers(ROWS)
