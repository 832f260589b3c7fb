"""`ernie-rt batch`: answer a file of requests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ernie_rt.cli import options as opt

if TYPE_CHECKING:
    from ernie_rt_serve.batch.job import Batch
    from ernie_rt_serve.batch.run import Tally

AHEAD: Final = 4
"""So many requests are under way for each answer that is computed: the engine never waits for the next."""
CONTEXT: Final = 8192


def batch(
    requests: Annotated[Path, typer.Argument(metavar="REQUESTS", help="A JSONL file; - reads standard input.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where answers go, one a line; - is standard output.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder, a known name such as demo, or a hub id; when not given, what the requests name.",
        ),
    ] = None,
    errors: Annotated[
        Path | None, typer.Option(help="Where answers that are errors go; when not given, among the others.")
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Answers in the order of the requests.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out lines that are no requests, instead of answering none.")
    ] = False,
    max_sequences: Annotated[int, typer.Option(min=1, help="How many answers are computed at once.")] = 8,
    max_context: opt.MaxContext = None,
    weights: opt.Quantize = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_batch_tokens: opt.BatchTokens = None,
    max_patches: opt.MaxPatches = None,
    text_only: opt.TextOnly = False,
    threads: opt.Threads = None,
    graphs: opt.Graphs = True,
    memory: opt.Memory = None,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
) -> None:
    """Answer a file of requests in the format of OpenAI's batch API.

    A line is {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}; /v1/completions and
    /v1/responses are there as well. When a run was interrupted or killed, the same command goes on where it stopped.
    Exit code 1: at least one answer is an error.
    """
    from ernie_rt.cli.output import say, write
    from ernie_rt_serve.batch.job import STREAM, Batch, Job

    job = Job(
        requests=requests, answers=output, errors=errors, concurrency=AHEAD * max_sequences, ordered=ordered,
        skip_bad=skip_bad,
    )  # fmt: skip
    with Batch(job, lambda line: write(line.decode()), say) as under_way:
        if under_way.found and not quiet:
            say(f"{under_way.found:,} of {under_way.total:,} were answered before")
        try:
            if under_way.left:
                _answer(
                    under_way, model, quiet=quiet, backend=backend, device=device, dtype=dtype, weights=weights,
                    max_context=max_context, max_sequences=max_sequences, max_batch_tokens=max_batch_tokens,
                    max_patches=max_patches, text_only=text_only, threads=threads, graphs=graphs, memory=memory,
                    verbose=verbose,
                )  # fmt: skip
        except KeyboardInterrupt:
            resume = "" if job.answers == STREAM else "; the same command goes on from there"
            say(f"interrupted: {under_way.left:,} of {under_way.total:,} are left{resume}")
            raise typer.Exit(130) from None
        failed = under_way.failed
        if not quiet:
            say(f"{under_way.total:,} requests, {failed:,} with errors{_spent(under_way.tally)}")
    if failed:
        raise typer.Exit(1)


def _answer(
    under_way: Batch,
    model: str | None,
    *,
    weights: opt.Weights | None,
    max_context: str | None,
    max_sequences: int,
    text_only: bool,
    threads: int | None,
    backend: str,
    device: str,
    dtype: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Answer what is left by a model, as a server would."""
    import asyncio

    from ernie_rt import AsyncModel
    from ernie_rt.cli.loaded import loaded, quantized
    from ernie_rt.cli.output import parse_size, say
    from ernie_rt.errors import OptionError
    from ernie_rt.location import locate
    from ernie_rt_serve.app import make_app
    from ernie_rt_serve.batch.in_process import respond_by
    from ernie_rt_serve.batch.requests import LINE_LIMIT
    from ernie_rt_serve.settings import Settings

    named = under_way.model
    ref = model or named
    if ref is None:
        raise OptionError("no model", where=str(under_way.job.requests), hint="Name one by --model, or in the requests")
    if named is not None and model not in (None, named) and not quiet:
        say(f"the requests ask for {named}: {model} answers them")
    located = locate(ref)
    located = located.text_alone if text_only else located
    longest = located.config.max_position_embeddings
    settings = Settings(named or ref, body_bytes=LINE_LIMIT, held_bytes=sys.maxsize, json_signs=LINE_LIMIT)
    with (
        loaded(
            located, backend=backend, device=device, dtype=dtype, threads=threads, quiet=quiet,
            max_context=min(longest, CONTEXT) if max_context is None else parse_size(max_context),
            max_sequences=max_sequences,
            weights=quantized(located, weights, threads, backend=backend, device=device, dtype=dtype),
            **options,
        ) as ready,
        _bar(under_way) as progress,
    ):  # fmt: skip

        async def answered() -> None:
            async with AsyncModel(ready) as served:
                await under_way.run(respond_by(make_app(served, settings)), progress)

        asyncio.run(answered())


@contextmanager
def _bar(under_way: Batch) -> Iterator[Callable[[Tally], None]]:
    """Shows on a terminal how many are answered, tokens a second, the time left; what it gives is told of each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ernie_rt.cli.output import animated

    began = time.monotonic()
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]:.0f} tokens/s"), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not animated(sys.stderr),
    )  # fmt: skip
    task = bar.add_task("", total=under_way.total, completed=under_way.found, speed=0.0)

    def show(tally: Tally) -> None:
        speed = tally.output_tokens / (time.monotonic() - began)
        bar.update(task, completed=under_way.found + tally.answered, speed=speed)

    with bar:
        yield show


def _spent(tally: Tally) -> str:
    if not tally.output_tokens:
        return ""
    return f"; {tally.prompt_tokens:,} tokens of prompts, {tally.output_tokens:,} of answers"
