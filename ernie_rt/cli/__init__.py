"""The command line. Each command is a module; what it needs is imported when it runs, so `--help` stays quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ernie_rt import __version__
from ernie_rt.cli import backends, graph, models, run
from ernie_rt.errors import ErnieRtError

app = typer.Typer(
    name="ernie-rt",
    help="Run Baidu's ERNIE 4.5 models on whatever hardware you have.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run.run, graph.graph, models.models, backends.backends):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ernie-rt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: exit code 0 ok, 1 failed, 2 usage or bad input, 130 interrupted."""
    try:
        app()
    except ErnieRtError as error:
        print(f"ernie-rt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left; point stdout at nothing so that the interpreter does not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
