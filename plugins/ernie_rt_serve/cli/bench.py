"""`ernie-rt bench serve`: how a server does under load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

KEY_LIMIT: Final = 1 << 12


def serve(
    base_url: Annotated[str, typer.Option(help="Any server that speaks OpenAI's protocol.")] = (
        "http://127.0.0.1:8000/v1"
    ),
    model: Annotated[
        str | None, typer.Option(help="The model's name; when not given, the one that the server lists.")
    ] = None,
    endpoint: Annotated[Literal["chat", "completions"], typer.Option(help="What is asked.")] = "chat",
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key; else it is taken from OPENAI_API_KEY.")
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(help="Closed loop: how many requests run at once, 8; or several, one after another: 1,8,32."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Open loop: how many requests a second begin, at random times, whether others are done or not."
        ),
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="How many requests each load has.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="For how many seconds requests begin; 30 when --requests is not given."),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Requests before each load that do not count; one round when not given.")
    ] = None,
    prompt_tokens: Annotated[str, typer.Option(help="Length of prompts: 256, or 128-512 to draw it.")] = "256",
    answer_tokens: Annotated[str, typer.Option(help="Length of answers, likewise; asked for as max_tokens.")] = "128",
    dataset: Annotated[
        Path | None, typer.Option(help='Prompts of a JSONL file: {"prompt": …} or {"messages": …} a line.')
    ] = None,
    shared_prefix: Annotated[
        int,
        typer.Option(
            min=0, help="How many tokens all prompts have in common at their beginning, to measure a prefix cache."
        ),
    ] = 0,
    slo: Annotated[
        str | None,
        typer.Option(
            help="Limits in seconds, such as ttft=1,tpot=0.05 (or e2e); requests that keep all of them are goodput."
        ),
    ] = None,
    body: Annotated[
        str, typer.Option(help='More fields of every request, as JSON: {"temperature": 0}; null takes a field out.')
    ] = "{}",
    seed: Annotated[
        int | None, typer.Option(help="For the same prompts again: a server that still has them cached is faster then.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until a request counts as failed.")] = 600,
    plot: Annotated[Path | None, typer.Option(help="Write charts, to a .svg or .html file.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything to a file, each request by itself.")
    ] = None,
) -> None:
    """Measure a server under load: latencies, throughput, goodput.

    Every prompt is made of random words and unlike any other, so that no prefix cache flatters; what the server says it
    had cached is printed. Tokens are counted by the server (`usage`). Latencies are the client's: to the first token,
    per output token after it, between tokens, to the end. In open loop they count from when a request was due.
    """
    import asyncio
    import secrets

    import msgspec

    from ernie_rt import writing
    from ernie_rt.cli.output import status, write
    from ernie_rt_serve.bench.connection import Client
    from ernie_rt_serve.bench.figures import parse_limits
    from ernie_rt_serve.bench.load import Extent, parse_loads
    from ernie_rt_serve.bench.plot import check_plot, write_plot
    from ernie_rt_serve.bench.prompts import Length, read_dataset
    from ernie_rt_serve.bench.report import report_text
    from ernie_rt_serve.bench.run import Report, Settings, bench, only_model

    if plot is not None:
        check_plot(plot)
    writing.check_targets(json_file)
    if seconds is None and requests is None:
        seconds = 30.0
    loads = parse_loads(concurrency, rate)
    prompt, answer = Length.parse("--prompt-tokens", prompt_tokens), Length.parse("--answer-tokens", answer_tokens)
    limits = parse_limits(slo) if slo else {}
    extra = _fields(body)
    lines = None if dataset is None else read_dataset(dataset, chat=endpoint == "chat")
    key = _key(api_key_file)

    async def measured() -> Report:
        async with Client(base_url, key) as client:
            settings = Settings(
                base_url=client.url, endpoint=endpoint, model=model or await only_model(client), loads=loads,
                extent=Extent(requests, seconds), warmup=warmup, prompt=prompt, answer=answer,
                dataset=None if dataset is None else str(dataset), shared_prefix=shared_prefix,
                seed=secrets.randbits(32) if seed is None else seed, timeout=timeout, body=extra, slo=limits,
            )  # fmt: skip
            return await bench(settings, client, lines, progress)

    with status() as tell:

        def progress(phase: str, ended: int) -> None:
            tell(f"{phase}: {ended} requests")

        report = asyncio.run(measured())
    write(report_text(report))
    if json_file is not None:
        with writing.write_atomic(json_file) as file:
            file.write(msgspec.json.encode(report))
    if plot is not None:
        write_plot(plot, report)
    if not any(phase.summary.failed < phase.summary.requests for phase in report.phases):
        raise typer.Exit(1)


def _fields(text: str) -> dict[str, Any]:
    """The object that --body is; OptionError otherwise."""
    import msgspec

    from ernie_rt.display import shown
    from ernie_rt.errors import OptionError
    from ernie_rt_serve.structs import decode

    try:
        return decode(text, dict[str, Any])
    except msgspec.MsgspecError:
        raise OptionError(
            "--body is no JSON object", expected='such as {"temperature": 0}', found=shown(text)
        ) from None


def _key(path: Path | None) -> str | None:
    """The key of the file, or of the environment; OptionError for what can be none."""
    from ernie_rt import files
    from ernie_rt.errors import OptionError

    if path is None:
        where, key = "OPENAI_API_KEY", os.environ.get("OPENAI_API_KEY", "")
    else:
        where, key = str(path), files.read_bytes(path, KEY_LIMIT).decode("utf-8", "replace")
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise OptionError("no API key", where=where, expected="one line of printable ASCII")
    if path is not None and not key:
        raise OptionError("no API key", where=where, expected="one line of printable ASCII", found="an empty file")
    return key or None
