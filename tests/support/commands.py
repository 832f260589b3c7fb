"""The command line, called in this process or as one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

import typer.main

from ernie_rt import cli
from ernie_rt.cli import group, lazy

# A shell that starts tests in the background has them ignore SIGINT, and children inherit that.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from ernie_rt.cli import main
main()
"""
START = (sys.executable, "-c", PROGRAM)
"""The installed command without its script, which may be the one of another environment."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit code, and what went to standard output and standard error; and the error that it came to, if any."""

    code: object
    out: str
    err: str
    error: BaseException | None = field(default=None, compare=False)


@cache
def built() -> object:
    """What typer makes of the group, anew at each call."""
    return typer.main.get_command(cli.app)


make = lazy._made


@cache
def kept(name: str, module: str) -> Any:
    """What typer makes of a command of ours: most of what a short call costs."""
    return make(name, module)


def made(name: str, module: str) -> Any:
    """A command of ours is made once; a stranger's, of which another test may have another, anew."""
    return kept(name, module) if group.OURS.get(name) == module else make(name, module)


def command(*arguments: object, stdin: bytes = b"", encoding: str = "utf-8", closed: str = "") -> Outcome:
    """`ernie-rt ARGUMENTS` in this process; `encoding` is that of standard output, `closed` a stream that is not."""
    out, err = io.BytesIO(), io.BytesIO()
    streams: dict[str, Any] = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin), "utf-8"),
        "stdout": io.TextIOWrapper(out, encoding),
        "stderr": io.TextIOWrapper(err, "utf-8", write_through=True),
    }
    with (
        patch.object(cli, "app", built()),
        patch.object(lazy, "_made", made),
        patch.object(sys, "argv", ["ernie-rt", *map(str, arguments)]),
        patch.dict(os.environ),  # -p writes to it
        patch.multiple(sys, **streams | ({closed: None} if closed else {})),
    ):
        code: object = 0
        error: BaseException | None = None
        try:
            cli.main()
        except SystemExit as exit:
            code, error = exit.code, exit.__context__
        sys.stdout.flush()
        if closed in ("stdout", "stderr"):
            getattr(sys, closed).close()  # what main put in its place
        return Outcome(code, out.getvalue().decode(), err.getvalue().decode(), error)


def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """`ernie-rt ARGUMENTS` in a process of its own, with pipes."""
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # what is buffered is lost or complained about, if anything is
    return subprocess.Popen([*START, *map(str, arguments)], env=environment, **settings | options)  # type: ignore
