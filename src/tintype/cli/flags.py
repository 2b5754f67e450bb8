"""Flags that several commands take."""

from typing import Annotated

import typer

ModelFlag = Annotated[
    str | None,
    typer.Option(
        help="pocket, a preset, a run or diffusers folder, a .safetensors file or owner/name."
    ),
]
DeviceFlag = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
PickleFlag = Annotated[
    bool | None,
    typer.Option("--allow-pickle", help="Read .ckpt, .bin and .pt files (weights only)."),
]
OfflineFlag = Annotated[bool | None, typer.Option("--offline", help="Never ask the model hub.")]
