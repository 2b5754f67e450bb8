"""The shell front: flags to requests, events to bars; no logic of its own."""

import logging
import os
import sys
from typing import Annotated

import typer

from tintype import console
from tintype.cli import models
from tintype.cli.convert import convert, merge, push
from tintype.cli.generate import generate, schedulers
from tintype.cli.sweep import sweep
from tintype.cli.train import demo, evaluate, train
from tintype.cli.upscale import upscale
from tintype.errors import TintypeError
from tintype.version import __version__

app = typer.Typer(
    name="tintype",
    help="Teach a text-to-image model a subject from 3-5 pictures, then draw it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.out.print(f"tintype {__version__}")
        raise typer.Exit


for command in (demo, train, sweep, generate, upscale, evaluate, convert, merge, push, schedulers):
    app.command()(command)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; an error that we raise on purpose is a message and exit code 2."""
    # libraries speak, while they are imported, of others that they can do without
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        app()
    except TintypeError as error:
        if not error.heard:
            console.err.quiet = False
            console.err.print(f"Error: {error}", markup=False)
        sys.exit(error.exit_code)
