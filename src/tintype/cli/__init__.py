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
from tintype.runtime.threads import busy_cores, idle_cores
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


def _leave_cores_to_others() -> None:
    """Have no more threads than there are idle cores, before torch is imported and makes them.

    OpenMP's threads wait for each other in a spin, so that one whose core is taken holds up all.
    """
    if "OMP_NUM_THREADS" in os.environ or "torch" in sys.modules:
        return
    busy = busy_cores()
    idle = idle_cores(busy)
    if idle < len(busy):
        os.environ["OMP_NUM_THREADS"] = str(idle)


def main() -> None:
    """Run the command line; an error that we raise on purpose is a message and exit code 2."""
    # libraries speak, while they are imported, of others that they can do without
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not {"--help", "--version"} & set(sys.argv):
        _leave_cores_to_others()
    try:
        app()
    except TintypeError as error:
        if not error.heard:
            console.err.quiet = False
            console.err.print(f"Error: {error}", markup=False)
        sys.exit(error.exit_code)
