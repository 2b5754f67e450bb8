"""`tintype convert`, `tintype merge` and `tintype push`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tintype import console
from tintype.cli.flags import OfflineFlag, PickleFlag
from tintype.service import Service
from tintype.settings import load_settings
from tintype.types import ConvertRequest, MergeRequest, PushRequest

if TYPE_CHECKING:
    from tintype.models.convert.convert import Converted

ToFlag = Annotated[
    str | None,
    typer.Option(
        metavar="LAYOUT", help="diffusers, single-file; kohya, comfyui, peft, tintype; a1111."
    ),
]
PrecisionFlag = Annotated[
    str | None, typer.Option(help="fp32, fp16, bf16, fp8; as it is stored without.")
]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace what is at OUT.")]
BaseFlag = Annotated[str | None, typer.Option(help="What an adapter or embedding is for.")]


def convert(
    source: Annotated[str, typer.Argument(help="As for --model; an adapter; an embedding.")],
    out: Annotated[Path, typer.Argument(help="NAME.safetensors, or a folder.")],
    to: ToFlag = None,
    dtype: PrecisionFlag = None,
    pruned: Annotated[bool, typer.Option("--pruned", help="Leave out EMA weights.")] = False,
    force: ForceFlag = False,
    model: BaseFlag = None,
    token: Annotated[str | None, typer.Option(help="The word of an embedding.")] = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Write a model, an adapter or an embedding in another layout or precision."""
    service = Service(load_settings(allow_pickle=allow_pickle, offline=offline))
    request = ConvertRequest(
        **_given(
            source=source, out=out, to=to, dtype=dtype, pruned=pruned, force=force, model=model,
            token=token,
        )
    )  # fmt: skip
    with console.ProgressView() as view:
        _say(service.convert(request, emit=view))


def merge(
    out: Annotated[Path, typer.Argument(help="NAME.safetensors, or a folder.")],
    sources: Annotated[
        list[str], typer.Argument(metavar="NAME[:WEIGHT]...", help="Models, adapters, or both.")
    ],
    minus: Annotated[str | None, typer.Option(help="C of A + weight x (B - C).")] = None,
    rank: Annotated[int | None, typer.Option(help="Of merged adapters, by SVD.")] = None,
    to: ToFlag = None,
    dtype: PrecisionFlag = None,
    force: ForceFlag = False,
    model: BaseFlag = None,
    allow_pickle: PickleFlag = None,
    offline: OfflineFlag = None,
) -> None:
    """Merge models, or adapters, or adapters into a model, each with a weight."""
    service = Service(load_settings(allow_pickle=allow_pickle, offline=offline))
    request = MergeRequest(
        **_given(
            out=out, sources=tuple(sources), minus=minus, rank=rank, to=to, dtype=dtype,
            force=force, model=model,
        )
    )  # fmt: skip
    with console.ProgressView() as view:
        _say(service.merge(request, emit=view))


def push(
    source: Annotated[str, typer.Argument(help="A run, a model, an adapter, an embedding.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made if it isn't there.")],
    private: Annotated[bool, typer.Option("--private", help="For you alone to see.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    offline: OfflineFlag = None,
) -> None:
    """Send a result to the Hugging Face hub; no training pictures, no checkpoints."""
    request = PushRequest(source=source, repo=repo, private=private, dry_run=dry_run)
    console.show_pushed(Service(load_settings(offline=offline)).push(request))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _say(result: "Converted") -> None:
    place = console.short(result.path)
    told = f"Wrote {place} ({result.kind}, {result.layout}, {result.megabytes:.1f} MB)"
    console.out.print(told, markup=False)
