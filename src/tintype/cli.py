"""The shell front: flags to requests, events to bars; no logic of its own."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tintype import console
from tintype.errors import ConfigError, TintypeError
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types import GeneratedImage, GenerateRequest, TrainConfig
from tintype.version import __version__

app = typer.Typer(
    name="tintype",
    help="Teach a text-to-image model a subject from 3-5 pictures, then draw it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="What models there are and what they know.", no_args_is_help=True)
app.add_typer(models_app, name="models")

ModelFlag = Annotated[
    str | None,
    typer.Option(
        help="pocket, a run or diffusers folder, a .safetensors file or a hub id (owner/name)."
    ),
]
DeviceFlag = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
PickleFlag = Annotated[
    bool | None,
    typer.Option("--allow-pickle", help="Read .ckpt, .bin and .pt files (weights only)."),
]
OfflineFlag = Annotated[bool | None, typer.Option("--offline", help="Never ask the model hub.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.out.print(f"tintype {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="The run folder to write.")] = None,
    device: DeviceFlag = None,
) -> None:
    """Teach the embedded model a bundled character, and show what came of it."""
    settings = load_settings(device=device)
    with console.ProgressView() as view:
        result = Service(settings).demo(out or settings.runs_dir / "demo", emit=view)
    console.out.print(result.summary(), markup=False)


@app.command()
def train(
    pictures: Annotated[Path | None, typer.Argument(help="A folder of 3-5 pictures.")] = None,
    class_noun: Annotated[str | None, typer.Option(help="What it is: dog, toy, duck…")] = None,
    model: ModelFlag = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default runs/NAME.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instance pictures a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides all randomness of the run.")] = None,
    class_dir: Annotated[Path | None, typer.Option(help="A folder of class pictures.")] = None,
    class_pictures: Annotated[
        int | None, typer.Option(help="How many; the missing ones are drawn by the base model.")
    ] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file; flags win over it.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of a config.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run from its last checkpoint.")
    ] = None,
    device: DeviceFlag = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Teach a model a subject (DreamBooth with prior preservation)."""
    service = Service(load_settings(device=device, allow_pickle=allow_pickle, offline=offline))
    flags = {
        "pictures": pictures, "class_noun": class_noun, "model": model, "out": out,
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed,
        "class_dir": class_dir, "class_pictures": class_pictures,
        "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    if resume is not None:
        given = [name for name, value in {**flags, "config": config, "set": set_}.items() if value]
        if given:
            raise ConfigError(
                "goes alone: a resumed run keeps its config, so drop "
                + ", ".join("--" + name.replace("_", "-") for name in given),
                field="--resume",
                value=str(resume),
            )
        with console.ProgressView() as view:
            result = service.resume(resume, emit=view)
    else:
        request = _train_config(config, set_ or [], flags)
        with console.ProgressView() as view:
            result = service.train(request, emit=view)
    run = console.short(result.out)
    console.out.print(
        f"Trained {result.steps} steps. The model is {console.short(result.model)}\n"
        f'Draw with it:   tintype generate "{result.instance_prompt}" --model {run}\n'
        f"Measure it:     tintype evaluate {run}",
        markup=False,
    )


def _train_config(file: Path | None, overrides: list[str], flags: dict[str, Any]) -> TrainConfig:
    from tintype.training.config import apply_overrides, read_config

    values = apply_overrides(read_config(file) if file else {}, overrides)
    return TrainConfig(
        **values | {name: value for name, value in flags.items() if value is not None}
    )


@app.command()
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


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")], device: DeviceFlag = None
) -> None:
    """Measure a run: likeness, prompt fidelity and class drift, before and after training."""
    with console.ProgressView() as view:
        result = Service(load_settings(device=device)).evaluate(run, emit=view)
    console.out.print(result.summary(), markup=False)


@app.command()
def schedulers() -> None:
    """List the schedulers: name, A1111's name, other names."""
    from tintype.schedulers import ROWS

    console.show_schedulers(ROWS)


@models_app.command("list")
def models_list() -> None:
    """List what can be named without a path."""
    console.out.print("pocket   embedded in tintype, 128x128 px, no download")


@models_app.command("show")
def models_show(model: Annotated[str, typer.Argument(help="As for --model.")]) -> None:
    """Show what a model is, its parts and sizes, and what it knows."""
    console.show_model(Service(load_settings()).describe(model))


def main() -> None:
    """Run the command line; an error that we raise on purpose is a message and exit code 2."""
    try:
        app()
    except TintypeError as error:
        console.err.print(f"Error: {error}", markup=False)
        sys.exit(error.exit_code)
