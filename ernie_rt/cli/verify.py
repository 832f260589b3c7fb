"""`ernie-rt verify`: is an exported or quantised folder whole, and safe to open?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ernie_rt.cli.export import figures
from ernie_rt.cli.options import Json


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `ernie-rt export` or `quantize` wrote.")],
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Run the model too: compare each layer with the float64 reference.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check an exported or quantised folder before it is opened.

    Every file has to be the one that was written, none may lead elsewhere, and a graph must be the one that belongs to
    these weights. Compare the sha256 that it prints with the one that `ernie-rt export` or `quantize` printed: it tells
    this folder from all others. Exit code 2: the folder is not what was written. Exit code 1: a part of it could not be
    checked, or, with --numbers, it computes something else.
    """
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.cli.output import say, write
    from ernie_rt.display import printable
    from ernie_rt.export import verify as check

    with progress_bar("verifying", "comparing each layer with float64" if numbers else None) as progress:
        verified = check(folder, numbers=numbers, progress=progress)
    for note in verified.notes:
        say(note)
    if as_json:
        found = {"folder": str(folder), "sha256": dict(verified.digests), "figures": dict(verified.figures)}
        write(json.dumps(found | {"notes": verified.notes, "unchecked": verified.unchecked}) + "\n")
    else:
        count = len(verified.digests)
        checked = f"{count} files are" if verified.unchecked else f"all {count} files are"
        name, digest = next(iter(verified.digests.items()))
        write(f"{figures(verified.figures)}{folder}: {checked} as they were written\n")
        write(f"{name}: sha256 {digest}\n")
    if verified.unchecked:
        say(f"not checked, since nothing says what was written: {', '.join(map(printable, verified.unchecked))}")
        say("An earlier ernie-rt wrote this folder: quantise the model again, and all of it can be checked")
        raise typer.Exit(1)
