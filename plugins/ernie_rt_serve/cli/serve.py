"""`ernie-rt serve`: answer requests over HTTP."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ernie_rt.cli import options as opt

if TYPE_CHECKING:
    from ernie_rt.session import Model
    from ernie_rt_serve.access import Keys

KEY_VARIABLE: Final = "ERNIE_RT_API_KEY"
CONTEXT: Final = 8192


def serve(
    model: opt.Ref,
    host: Annotated[str, typer.Option(help="The address to listen at; this machine alone can reach the default.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option("--served-model-name", help="What clients call the model; MODEL when not given.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"API keys, one a line, of which a client needs one; else {KEY_VARIABLE} may hold one."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines, and pages of the web, ask without any key.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Let web pages of this origin ask: https://chat.example.org, or * for all. May be given several times."
        ),
    ] = None,
    max_sequences: Annotated[int, typer.Option(min=1, help="How many answers are computed at once.")] = 8,
    max_queue: Annotated[
        int, typer.Option(min=0, help="How many more may wait; further requests are turned away.")
    ] = 64,
    queue_seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="Turn away a request that has waited so many seconds; when not given, none."),
    ] = None,
    max_context: Annotated[
        str | None, typer.Option(help="Tokens of a prompt and its answer together, such as 32k; 8k when not given.")
    ] = None,
    cache_tokens: Annotated[
        str | None,
        typer.Option(help="Tokens in the cache, of all answers together; when not given, enough for the longest."),
    ] = None,
    max_body: Annotated[
        str | None,
        typer.Option(help="Bytes of a request, such as 64MiB; when not given 4MiB, and 32MiB for a model that sees."),
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How many seconds answers may still take when the server is told to end.")
    ] = 30,
    weights: opt.Quantize = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_batch_tokens: opt.BatchTokens = None,
    max_patches: opt.MaxPatches = None,
    text_only: opt.TextOnly = False,
    threads: opt.Threads = None,
    graphs: opt.Graphs = True,
    deterministic: opt.Deterministic = False,
    memory: opt.Memory = None,
    cache_dir: opt.CacheDir = None,
    cache_size: opt.CacheSize = None,
    why: opt.Why = False,
    verbose: opt.Verbose = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line for each request, nor remarks.")] = False,
) -> None:
    """Answer requests over HTTP, as OpenAI and Anthropic do.

    A page for the browser is at /.

    SIGTERM or Ctrl-C ends it gently: requests that wait are turned away, answers that are under way come to their ends.
    A second one ends it at once. Prompts and answers are never written to the log.
    """
    import asyncio

    from ernie_rt.cli.loaded import loaded, quantized
    from ernie_rt.cli.output import parse_size, say
    from ernie_rt.errors import OptionError
    from ernie_rt.location import locate
    from ernie_rt.vision.decoding import need
    from ernie_rt_serve import running
    from ernie_rt_serve.settings import Settings

    keys = _keys(api_key_file)
    if not keys and not insecure and not running.is_loopback(host):
        raise OptionError(
            "other machines could use this server without a key", where=f"--host {host}",
            hint=f"Give keys with --api-key-file or {KEY_VARIABLE}, or say --insecure",
        )  # fmt: skip
    located = locate(model)
    located = located.text_alone if text_only else located
    if located.config.sees is not None:
        need("PIL", "av")
    longest = located.config.max_position_embeddings
    context = min(longest, CONTEXT) if max_context is None else parse_size(max_context)
    settings = Settings(
        name or _name(model), keys, _origins(cors_origin or ()), drain_seconds=drain_seconds,
        body_bytes=None if max_body is None else parse_size(max_body), own_hosts=not keys and not insecure,
    )  # fmt: skip
    listener = running.bind(host, port)
    running.allow_connections()
    log_to_stderr(quiet)

    def load() -> AbstractContextManager[Model]:
        return loaded(
            located, backend=backend, device=device, dtype=dtype, max_context=context, max_sequences=max_sequences,
            cache_tokens=None if cache_tokens is None else parse_size(cache_tokens), max_batch_tokens=max_batch_tokens,
            max_patches=max_patches, threads=threads, graphs=graphs, deterministic=deterministic, memory=memory,
            cache_dir=cache_dir, cache_size=cache_size, why=why, verbose=verbose, quiet=quiet,
            weights=quantized(
                located, weights, threads, backend=backend, device=device, dtype=dtype, deterministic=deterministic
            ),
        )  # fmt: skip

    def ready(loaded: Model) -> None:
        choice = loaded.choice
        say(f"serving {settings.model} on {choice.backend}, {choice.device}, {choice.dtype}")
        for line in _greeting(listener.getsockname(), bool(keys), loaded.template is not None):
            say(line)

    asyncio.run(running.run(listener, settings, load, ready, max_queue=max_queue, queue_seconds=queue_seconds))


def _keys(file: Path | None) -> Keys:
    """Those of the file, else that of the environment; a variable that is set and empty is an error as well."""
    from ernie_rt_serve.access import NO_KEYS, Keys

    if file is not None:
        return Keys.read(file)
    return Keys.of([os.environ[KEY_VARIABLE]], KEY_VARIABLE) if KEY_VARIABLE in os.environ else NO_KEYS


def _origins(given: Iterable[str]) -> tuple[str, ...]:
    """As browsers spell them: a scheme and a host, perhaps a port, and nothing behind."""
    from ernie_rt.display import shown
    from ernie_rt.errors import OptionError

    origins = tuple(origin.lower() for origin in given)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
            raise OptionError(
                "--cors-origin is no origin", expected="such as https://chat.example.org, or *", found=shown(origin)
            )
    return origins


def _name(model: str) -> str:
    """What clients call a model that nobody has named: a folder's own name, whatever it lies in.

    Whatever is in that name, too: it need not be UTF-8, as answers are, and may hold what steers a terminal.
    """
    from ernie_rt.display import printable

    return printable(Path(model).resolve().name) if Path(model).is_dir() else model


def _greeting(address: tuple[Any, ...], keys: bool, chats: bool) -> list[str]:
    """Where the server is, and how to ask it something."""
    host, port = str(address[0]), address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    key = " -H 'Authorization: Bearer YOUR-KEY'" if keys else ""
    path, body = "completions", '{"prompt": "Once upon a time"}'
    if chats:
        path, body = "chat/completions", '{"messages": [{"role": "user", "content": "Hello"}]}'
    return [
        f"open {url}, or ask:",
        f"curl {url}/v1/{path} -H 'Content-Type: application/json'{key} -d '{body}'",
    ]


def log_to_stderr(quiet: bool) -> None:
    """A line for each request, unless `quiet`, and for what goes wrong."""
    from ernie_rt.cli.output import say

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(self.format(record))

    for name, level in (("ernie_rt_serve", logging.ERROR if quiet else logging.INFO), ("uvicorn", logging.ERROR)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [Said()], False
        log.setLevel(level)
