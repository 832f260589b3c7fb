"""The command line. Each command is a module, imported when it runs or its help is wanted, and so is what it needs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ernie_rt import __version__
from ernie_rt.cli.group import Commands
from ernie_rt.cli.output import abandon, say, settle_streams
from ernie_rt.display import printable
from ernie_rt.errors import ErnieRtError

app = typer.Typer(
    name="ernie-rt",
    cls=Commands,
    help="Run Baidu's ERNIE 4.5 models on whatever hardware you have.",
    epilog='Begin with: ernie-rt run demo "How many grams are in 5 kilograms?"',
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _leave_out(plugins: list[str] | None) -> list[str] | None:
    if plugins:
        from ernie_rt.discovery.installed import switch

        for text in plugins:
            switch(text)
    return plugins


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ernie-rt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        # Before the commands are looked for, some of which are plugins.
        typer.Option(
            "-p",
            metavar="no:NAME",
            callback=_leave_out,
            is_eager=True,
            help="Leave a plugin out; may be given several times.",
        ),
    ] = None,
) -> None:
    """Its options act by themselves."""


def main() -> None:
    """Run the command line: exit code 0 ok, 1 failed, 2 usage or bad input, 130 interrupted."""
    try:
        settle_streams()
        app(prog_name="ernie-rt")
    except ErnieRtError as error:
        say(f"ernie-rt: {printable(str(error))}")
        sys.exit(error.exit_code)
    except OSError as error:  # help that nobody can print, a disk or machine that gives way
        abandon(sys.stdout)
        parts = [str(part) for part in (error.filename, error.strerror) if part]
        say(f"ernie-rt: {printable(': '.join(parts) or str(error))}")
        sys.exit(1)
    except MemoryError as error:
        say(f"ernie-rt: there is not enough memory: {printable(str(error)) or 'none is left'}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("ernie-rt: interrupted")
        sys.exit(130)
