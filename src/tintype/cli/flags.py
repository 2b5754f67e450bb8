"""Flags that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

PicturesArgument = Annotated[Path | None, typer.Argument(help="A folder of 3-5 pictures.")]
ClassNounFlag = Annotated[str | None, typer.Option(help="What it is: dog, toy, duck…")]
MethodFlag = Annotated[
    str | None, typer.Option(help="dreambooth, lora, textual-inversion, pivotal…")
]
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
