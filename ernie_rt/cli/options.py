"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Ref = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A checkpoint folder, a known name (`ernie-rt models`), or a hub id."),
]
Backend = Annotated[str, typer.Option(help="A backend by name, or auto (`ernie-rt backends`).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, …")]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's), float32, bfloat16 or float16.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
