"""`tintype demo`, `tintype train` and `tintype evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tintype import console
from tintype.cli.flags import (
    ClassNounFlag,
    DeviceFlag,
    MethodFlag,
    ModelFlag,
    OfflineFlag,
    PickleFlag,
    PicturesArgument,
)
from tintype.errors import ConfigError
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types import TrainConfig
from tintype.types.base import merged


def demo(
    out: Annotated[Path | None, typer.Option(help="The run folder to write.")] = None,
    device: DeviceFlag = None,
) -> None:
    """Teach the embedded model a bundled character, and show what came of it."""
    settings = load_settings(device=device)
    with console.ProgressView() as view:
        result = Service(settings).demo(out or settings.runs_dir / "demo", emit=view)
    console.out.print(result.summary(), markup=False)


def train(
    pictures: PicturesArgument = None,
    class_noun: ClassNounFlag = None,
    model: ModelFlag = None,
    method: MethodFlag = None,
    identifier: Annotated[str | None, typer.Option(help="The rare word for it.")] = None,
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
    devices: Annotated[
        str | None, typer.Option(metavar="N|auto", help="GPUs of this machine, or CPU processes.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines, under torchrun or srun.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="auto, ddp, or fsdp: weights spread over the devices.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file; flags win over it.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of a config.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run from its last checkpoint; --set steps=N for more."),
    ] = None,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Resume though config, pictures or base changed."),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only tell what memory and time it would take.")
    ] = False,
    device: DeviceFlag = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Teach a model a subject, by DreamBooth, LoRA or other methods."""
    console.let_first_speak()
    service = Service(load_settings(device=device, allow_pickle=allow_pickle, offline=offline))
    flags = {
        "pictures": pictures, "class_noun": class_noun, "model": model, "method": method,
        "identifier": identifier, "out": out, "steps": steps, "batch_size": batch_size,
        "learning_rate": learning_rate, "seed": seed,
        "class_dir": class_dir, "checkpoint_every": checkpoint_every,
        "devices": int(devices) if devices and devices.isdecimal() else devices,
        "nodes": nodes, "strategy": strategy,
        "prior": None if class_pictures is None else {"pictures": class_pictures},
    }  # fmt: skip
    if resume is None and allow_changed:
        raise ConfigError("goes with --resume", field="--allow-changed")
    if resume is not None and plan:
        raise ConfigError("plans a run that is to begin: drop --resume", field="--plan")
    if resume is not None:
        if config is not None:
            raise ConfigError(
                "keeps its own config: drop --config (--set and other flags change fields of it)",
                field="--resume",
                value=str(resume),
            )
        changes = _values(None, set_ or [], flags)
        with console.ProgressView() as view:
            result = service.resume(resume, changes=changes, allow_changed=allow_changed, emit=view)
    else:
        request = TrainConfig(**_values(config, set_ or [], flags))
        if plan:
            console.out.print(service.plan(request).summary(), markup=False)
            return
        with console.ProgressView() as view:
            result = service.train(request, emit=view)
    run = console.short(result.out)
    console.out.print(
        f"Trained {result.steps} steps. The model is {console.short(result.model)}\n"
        f'Draw with it:   tintype generate "{result.instance_prompt}" --model {run}\n'
        f"Measure it:     tintype evaluate {run}",
        markup=False,
    )


def _values(file: Path | None, overrides: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config that a file, then `--set`, then other flags give."""
    from tintype.training.config import apply_overrides, read_config

    values = apply_overrides(read_config(file) if file else {}, overrides)
    given = {name: value for name, value in flags.items() if value is not None}
    return merged(values, given)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")], device: DeviceFlag = None
) -> None:
    """Measure a run: likeness, prompt fidelity and class drift, before and after training."""
    with console.ProgressView() as view:
        result = Service(load_settings(device=device)).evaluate(run, emit=view)
    console.out.print(result.summary(), markup=False)
