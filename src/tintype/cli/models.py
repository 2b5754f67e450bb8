"""`tintype models`: what models there are and what they know."""

from typing import Annotated

import typer

from tintype import console
from tintype.service import Service
from tintype.settings import load_settings

app = typer.Typer(help="What models there are and what they know.", no_args_is_help=True)


@app.command("list")
def models_list() -> None:
    """List what can be named without a path."""
    console.out.print("pocket   embedded in tintype, 128x128 px, no download")


@app.command("show")
def models_show(model: Annotated[str, typer.Argument(help="As for --model.")]) -> None:
    """Show what a model is, its parts and sizes, and what it knows."""
    console.show_model(Service(load_settings()).describe(model))
