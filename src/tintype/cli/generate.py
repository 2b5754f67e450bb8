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
from tintype.types.base import merged


def generate(
    prompt: Annotated[str | None, typer.Argument(help="[V] is the subject's identifier.")] = None,
    model: ModelFlag = None,
    negative: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; 30.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 7.5.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; 0.")] = None,
    number: Annotated[int | None, typer.Option("-n", "--number", help="Pictures; 1.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, as 512x512.")] = None,
    aspect: Annotated[str | None, typer.Option(metavar="W:H", help="As 3:2; sets size.")] = None,
    quality: Annotated[
        bool | None, typer.Option("--quality", help="Add the preset's quality tags.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="See: tintype schedulers.")] = None,
    eta: Annotated[float | None, typer.Option(help="Noise of DDIM and TCD; 0.")] = None,
    s_churn: Annotated[float | None, typer.Option(help="Noise added by Euler; 0.")] = None,
    s_noise: Annotated[float | None, typer.Option(help="Scale of that noise; 1.")] = None,
    clip_skip: Annotated[int | None, typer.Option(help="Text layer from the end.")] = None,
    style: Annotated[list[str] | None, typer.Option(help="Of the styles file.")] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:WEIGHT]", help="LoRA and its kin.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="PICTURE", help="To begin from.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of it is drawn anew, 0-1; 0.75.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="White is drawn, black is kept.")
    ] = None,
    hires: Annotated[
        float | None, typer.Option(metavar="SCALE", help="A second pass, as much larger.")
    ] = None,
    refiner: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Draws the last part of the steps.")
    ] = None,
    tiling: Annotated[
        str | None, typer.Option(metavar="AXES", help="x, y or both: opposite edges meet.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL[:PICTURE[:PREPROCESSOR]]", help="Lead it by a ControlNet, or its kin."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any field, as guidance.rescale=0.7."),
    ] = None,
    like: Annotated[Path | None, typer.Option(help="Repeat this picture's request.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where pictures go; outputs.")] = None,
    device: DeviceFlag = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Draw pictures from a prompt."""
    from tintype.generation.images import save
    from tintype.training.config import apply_overrides

    settings = load_settings(device=device, allow_pickle=allow_pickle, offline=offline, out_dir=out)
    fields: dict[str, Any] = {
        "prompt": prompt, "model": model, "negative_prompt": negative, "steps": steps,
        "guidance_scale": guidance, "seed": seed, "num_images": number, "scheduler": scheduler,
        "aspect": aspect, "quality": quality, "eta": eta, "s_churn": s_churn, "s_noise": s_noise,
        "clip_skip": clip_skip, "styles": style, "adapters": adapter, "image": image,
        "strength": strength, "mask": mask, "refiner": refiner, "tiling": tiling,
        "hires": None if hires is None else {"scale": hires},
        "control": [_control(text) for text in control or ()],
    }  # fmt: skip
    fields = {name: value for name, value in fields.items() if value not in (None, [])}
    fields = merged(apply_overrides({}, set_ or []), fields)
    if aspect is not None and size is None and like is not None:
        fields["width"] = fields["height"] = None
    if size is not None:
        fields["width"], fields["height"] = _size(size)
    if like is None and prompt is None:
        raise ConfigError("PROMPT is missing (or --like PICTURE to repeat one)")
    service = Service(settings)
    with console.ProgressView() as view:
        if like is None:
            request = GenerateRequest(**fields)
        else:
            request = service.like(like, emit=view).replace(**fields)
        for event in service.generate(request, emit=view):
            view(event)
            if isinstance(event, GeneratedImage):
                console.out.print(str(save(event, settings.out_dir)), markup=False)


def _control(text: str) -> dict[str, str]:
    """MODEL, MODEL:PICTURE or MODEL:[PICTURE]:PREPROCESSOR as fields."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ConfigError("is not MODEL[:PICTURE[:PREPROCESSOR]]", field="--control", value=text)
    named = zip(("model", "image", "preprocessor"), parts, strict=False)
    return {name: part for name, part in named if part}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError("is not WIDTHxHEIGHT in pixels, as 512x512", field="--size", value=text)
    return int(width), int(height)


def schedulers() -> None:
    """List the schedulers: name, A1111's name, other names; and how they can be spaced."""
    from tintype.schedulers import ROWS, SCHEDULES

    console.show_schedulers(ROWS, SCHEDULES)
