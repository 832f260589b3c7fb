"""`ernie-rt bench`: how fast a model is here. Its command `serve`, which measures a server, is the server's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt_bench.peers import Peer
from ernie_rt_serve.cli.bench import serve


class Bench(TyperGroup):
    """A group that takes a model itself: what its first word names is a command, or else the model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, ["", *args])  # no model
        ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own; of a command's usage, which asks for them too, the model is no part."""
        params: list[Any] = super().get_params(ctx)
        return [each for each in params if ctx.command is self or each.param_type_name == "option"]


app = typer.Typer(cls=Bench, invoke_without_command=True, rich_markup_mode=None)
app.command()(serve)


@app.callback()
def bench(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder, a known name such as 0.3B (`ernie-rt models`), or a hub id. A known name that is not "
            "here is measured with random weights.",
            autocompletion=completion.models,
        ),
    ] = None,
    named: Annotated[str | None, typer.Option("--model", help="The same.", autocompletion=completion.models)] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="A backend by name; may be given several times. The one that is chosen, when not given."),
    ] = None,
    vs: Annotated[
        list[Peer] | None, typer.Option(help="Another program that takes turns; may be given several times.")
    ] = None,
    weights: opt.Quantize = None,
    prompt: Annotated[int, typer.Option(min=2, help="Tokens of the prompt.")] = 512,
    new: Annotated[int, typer.Option(min=1, help="Tokens that are decoded after it.")] = 128,
    depth: Annotated[
        int | None, typer.Option(min=2, help="Measure a second prompt as well, such as 4096, and decoding after it.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Of a model that sees: the tower alone, and a prompt behind a picture of this size.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How many times all take their turns.")] = 5,
    by_op: Annotated[bool, typer.Option("--by-op", help="Where the time of a step goes, op by op.")] = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    threads: opt.Threads = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Of a known model the first few layers alone, with random weights.")
    ] = None,
    llama_bench: Annotated[
        Path | None, typer.Option(help="llama.cpp's program; the one on PATH, when not given.")
    ] = None,
    gguf: Annotated[list[Path] | None, typer.Option(help="A file for llama.cpp; may be given several times.")] = None,
    exported: Annotated[Path | None, typer.Option(help="A folder of `ernie-rt export onnx`, for genai.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Where random weights that are quantised are written, and kept.")
    ] = None,
    json_out: opt.Json = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to a file, as Markdown.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the speeds, into a .svg file.")] = None,
) -> None:
    """Measure how fast a model is on this machine.

    That is reading a prompt, and writing after it. Each configuration has a process of its own, is warmed up, and takes
    turns with the others; how fast memory is read is measured right before and after everything, and what decoding
    reaches of it is the share of the floor.
    """
    if ctx.invoked_subcommand is not None:
        return

    from ernie_rt import writing
    from ernie_rt.cli.output import write
    from ernie_rt.errors import OptionError
    from ernie_rt.planning.machine import usable_cores
    from ernie_rt.planning.seeing import Shown
    from ernie_rt.vision.grid import PATCH
    from ernie_rt_bench.contenders import Given, ours, peers
    from ernie_rt_bench.plot import report_svg
    from ernie_rt_bench.report import machine, report_json, report_markdown, report_text, versions
    from ernie_rt_bench.rounds import measure
    from ernie_rt_bench.workload import Report, Workload

    ref = model or named
    if ref is None or (model and named):
        raise OptionError(
            "no model is named" if ref is None else "two models are named",
            expected="one, such as `ernie-rt bench demo`",
            hint="`ernie-rt bench serve` measures a server, `ernie-rt bench --help` has the options",
        )
    if plot is not None and plot.suffix != ".svg":
        raise OptionError("--plot has no known ending", expected="a .svg file", found=plot.name)
    writing.check_targets(markdown, plot)
    contexts = (prompt,) if depth is None else tuple(dict.fromkeys((prompt, depth)))
    if image is not None and vs:
        raise OptionError("--image measures ernie-rt alone", hint="Leave --vs out")
    size = None
    if image is not None:
        _, rows, columns = Shown.of("image", image).grid
        size = columns * PATCH, rows * PATCH
    workload = Workload(contexts, new, rounds, threads or usable_cores(), size)
    with writing.temporary_folder() as scratch:
        given = Given(
            ref, layers, weights, work or Path(scratch), {"device": device, "dtype": dtype, "threads": threads},
            llama_bench, gguf or (), exported,
        )  # fmt: skip
        contenders = [*ours(backend or ["auto"], given, workload), *peers(vs or (), given, workload)]
        results = measure(contenders, workload, _progress, by_op=by_op)
    _progress("")
    name = ref if layers is None else f"{ref}, {layers} layers"
    report = Report(name, machine(), versions(), workload, results)
    write(report_json(report) if json_out else report_text(report))
    for path, text in ((markdown, report_markdown), (plot, report_svg)):
        if path is not None:
            with writing.write_atomic(path) as file:
                file.write(text(report).encode())


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
