"""What the client itself can take: the fastest that it ever saw, from a server that does nothing but send."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import repeat
from typing import Final

import msgspec

from ernie_rt_serve.bench.connection import Client
from ernie_rt_serve.bench.figures import Spread, Summary, summarise
from ernie_rt_serve.bench.load import Extent, closed_loop
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.request import Asker

SECONDS: Final = 1.0
"""How long it is measured for."""
LARGE_SHARE: Final = 0.5
"""From this share of the ceiling on, requests wait for the client about as long as it works on them."""
LATE: Final = 0.01
"""Seconds by which a client that is not in anybody's way does not miss its own timers."""

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT: Final = b'data: {"id":"0","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" a"}}]}\n\n'
LAST: Final = b'data: {"id":"0","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'


class Ceiling(msgspec.Struct, frozen=True):
    """Events and requests a second, with so many events to an answer and so many requests at once."""

    events_per_second: float
    requests_per_second: float
    events: int
    concurrency: int


async def measure(events: int, concurrency: int, seconds: float = SECONDS) -> Ceiling:
    """Answers of so many events, from a process of its own on this machine."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", __name__, str(events),  # -P: the folder it runs in may be anybody's
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdin is not None and server.stdout is not None
    records: list[Record] = []
    try:
        port = int(await server.stdout.readline())
        async with Client(f"http://127.0.0.1:{port}") as client:
            asker = Asker(client, "", timeout=60)
            await closed_loop(asker, repeat(b"{}"), concurrency, Extent(seconds=seconds), records.append)
    finally:
        server.stdin.close()  # which ends it
        await server.wait()
    summary = summarise(records)
    return Ceiling(summary.events_per_second, summary.requests_per_second, events, concurrency)


@asynccontextmanager
async def lateness() -> AsyncIterator[list[float]]:
    """By how much timers of this process fire late in the block, in seconds: what every latency may be too large by."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            due = time.perf_counter() + 0.01
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - due)

    watcher = asyncio.create_task(watch())
    try:
        yield late
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


def warnings(ceiling: Ceiling, summary: Summary, late: Spread | None) -> Iterator[str]:
    """Where the client was the limit, so that figures are its own and not the server's."""
    share = summary.events_per_second / ceiling.events_per_second
    if share >= LARGE_SHARE:
        yield (
            f"the client was at {share:.0%} of the {ceiling.events_per_second:,.0f} events/s that it can take: "
            "latencies are partly its own; share the load among several clients"
        )
    if late is not None and late.p99 >= LATE:
        yield (
            f"the client was up to {late.p99 * 1000:.0f} ms late (p99): latencies may be too large by that; "
            "run it on another machine than the server, or on one with a free core"
        )


async def serve(events: int) -> None:
    """Answer every request with so many events, on a port that is printed, until standard input ends."""
    chunks = [b"%x\r\n%s\r\n" % (len(data), data) for data in [*repeat(EVENT, events), LAST % events]]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(HEAD)
                for chunk in chunks:
                    writer.write(chunk)
                    await asyncio.sleep(0)  # each by itself, as tokens come
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
