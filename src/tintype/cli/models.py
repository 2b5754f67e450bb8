"""`tintype models`: what models there are, what they know, and where they come from."""

from typing import Annotated

import typer

from tintype import console
from tintype.cli.flags import OfflineFlag, PickleFlag
from tintype.service import Service
from tintype.settings import load_settings

app = typer.Typer(help="What models there are and what they know.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="MODEL", help="As for --model.")]


@app.command("list")
def models_list() -> None:
    """List what can be named without a path, and what is here already."""
    console.show_models(Service(load_settings()).models())


@app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="As for --model, or any .safetensors file.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List a file's tensors too.")] = False,
    allow_pickle: PickleFlag = None,
) -> None:
    """Show what a model is, its parts and sizes, and what it knows; nothing is loaded."""
    service = Service(load_settings(allow_pickle=allow_pickle))
    if tensors:
        file = service.inspect(model)
        console.show_rows({**file.rows(), **file.tensor_rows()})
    else:
        console.show_rows(service.describe(model).rows())


@app.command("pull")
def models_pull(
    model: NameArgument, allow_pickle: PickleFlag = None, offline: OfflineFlag = None
) -> None:
    """Download a model into the hub's cache, going on where a download stopped."""
    service = Service(load_settings(allow_pickle=allow_pickle, offline=offline))
    with console.ProgressView() as view:
        path = service.pull(model, emit=view)
    console.out.print(str(path), markup=False)


@app.command("rm")
def models_rm(
    model: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete a downloaded model from the hub's cache."""
    if not yes:
        typer.confirm(f"Delete {model} from the hub's cache?", abort=True)
    freed = Service(load_settings()).remove(model)
    console.out.print(f"Freed {freed / 1e3:.1f} GB", markup=False)


@app.command("verify")
def models_verify(model: NameArgument) -> None:
    """Check a model's files against the hashes that the hub stored them by, offline."""
    with console.ProgressView() as view:
        checked = Service(load_settings()).verify(model, emit=view)
    console.show_checked(checked)
