"""`ernie-rt export`: write a model in a backend's own format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import typer

from ernie_rt.cli import completion
from ernie_rt.cli.options import Json, Ref, Threads, Weights
from ernie_rt.cli.quantize import Block, ClipSearch, Out, resumable


def export(
    backend: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="The backend whose format it is: onnx.", autocompletion=completion.formats
        ),
    ],
    model: Ref,
    out: Out,
    weights: Annotated[
        Weights | None, typer.Option(help="Quantise: linears and experts so, embedding and head int8.")
    ] = None,
    block: Annotated[Block, typer.Option(help="How many weights share a scale.")] = Block.small,
    clip_search: ClipSearch = True,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="What is computed in: float32 for a CPU, float16 or bfloat16 for a GPU.",
            autocompletion=completion.dtypes,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare each layer with the float64 reference before it is put in place.")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX, to run without ernie-rt.

    The new folder runs in ONNX Runtime, and in onnxruntime-genai. It remains a model of ernie-rt as well. Memory stays
    small. Interrupted, the same command goes on where it stopped, in the folder OUT.partial.
    """
    from ernie_rt.cli.loaded import progress_bar
    from ernie_rt.cli.output import say, write
    from ernie_rt.errors import OptionError
    from ernie_rt.export import ExportOptions
    from ernie_rt.export import export as write_model
    from ernie_rt.graph.types import dtype_of
    from ernie_rt.weights.quantize import Quantization

    try:
        settled = None if dtype is None else dtype_of(dtype)
    except ValueError as error:
        raise OptionError(str(error)) from None
    how = None
    if weights is not None:
        how = Quantization(weights.bits, cast(Literal[32, 64, 128], int(block)), clip_search=clip_search)
    options = ExportOptions(how, settled, verify, threads or os.cpu_count() or 1)
    then = "comparing each layer with float64" if verify else None
    with resumable(out), progress_bar("exporting", then) as progress:
        exported = write_model(model, out, backend, options, progress=progress)
    for note in exported.notes:
        say(note)
    if as_json:
        found = {"out": str(out), "files": dict(exported.files), "sha256": dict(exported.digests)}
        found |= {"figures": dict(exported.figures)}
        write(json.dumps(found | {"notes": exported.notes}) + "\n")
        return
    write(f"{figures(exported.figures)}{out}: {sum(exported.files.values()):,} bytes\n")
    for name, digest in exported.digests.items():
        write(f"{name}: sha256 {digest}\n")


def figures(errors: Mapping[str, float]) -> str:
    """A table of errors, or nothing."""
    from ernie_rt.display import columns

    rows = [[name, f"{value:.2g}"] for name, value in errors.items()]
    return f"relative rms error\n{columns(rows)}\n" if rows else ""
