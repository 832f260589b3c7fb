"""`ernie-rt convert`: bring a quantised model into another layout."""

from __future__ import annotations

from typing import Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli.options import Json
from ernie_rt.cli.quantize import Layout, Out, report, resumable


def convert(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The folder of a quantised model, or a hub id.", autocompletion=completion.models
        ),
    ],
    out: Out,
    layout: Annotated[Layout, typer.Option(help="raw: the order of ONNX Runtime. tiled: in tiles of 16 rows.")],
    as_json: Json = False,
) -> None:
    """Bring a quantised model into another layout.

    It is written into a new folder; no weight changes its value.
    """
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.location import locate
    from ernie_rt.weights.quantize import convert_model

    located = locate(model)
    assert located.folder is not None
    with resumable(out), progress_bar("converting") as progress:
        manifest = convert_model(located.folder, located.config, out, layout.value, progress=progress)
    report(out, located.config, manifest, as_json)
