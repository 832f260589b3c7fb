"""A server from its first moment to its last: it answers while the model loads, serves, drains and ends."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import uvicorn
from starlette.applications import Starlette

from ernie_rt import AsyncModel, Model
from ernie_rt.errors import OptionError
from ernie_rt_serve.app import make_app
from ernie_rt_serve.connection import connections
from ernie_rt_serve.service import Service
from ernie_rt_serve.settings import Settings

BACKLOG: Final = 2048
IDLE_SECONDS: Final = 75
"""How long a connection may rest between requests: longer than proxies keep theirs, lest one be used as it closes."""
FLUSH_SECONDS: Final = 5
"""How long the last bytes of answers may take on their way."""
MOST_FILES: Final = 1 << 16
ENDING: Final = "ending: %d answers are under way, for at most %g s; a second signal ends them at once"

log = logging.getLogger("ernie_rt_serve")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; OptionError where that cannot be.

    Connections inherit that what is written is sent at once: a token would wait for the client's acknowledgement of the
    one before it, 40 ms, and asyncio sees to that of its own sockets alone.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        raise OptionError(
            "cannot listen there", where=f"{host}, port {port}", found=getattr(error, "strerror", None) or str(error),
            hint="Another program may have that port: choose one with --port, or 0 for any",
        ) from None  # fmt: skip


def allow_connections() -> None:
    """Each is an open file, of which many systems let a process have 1,024 until it asks for more."""
    with suppress(ImportError, ValueError, OSError):  # where the system has no such limit, or allows no more
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
        if now != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


def is_loopback(host: str) -> bool:
    """Whether this machine alone can reach a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(app: Starlette, settings: Settings) -> uvicorn.Server:
    """What serves an application until its `should_exit` is set; signals are left to others."""
    config = uvicorn.Config(
        app, http=connections(settings), ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )  # fmt: skip
    return _Server(config)


async def run(
    listener: socket.socket,
    settings: Settings,
    load: Callable[[], AbstractContextManager[Model]],
    ready: Callable[[Model], None],
    *,
    max_queue: int,
    queue_seconds: float | None,
) -> None:
    """Serve until a signal says to end, then let answers come to their ends; a second signal ends the process at once.

    `load` gives the model, in a thread; `ready` is told of it when requests are welcome.
    """
    app = make_app(None, settings)
    server = make_server(app, settings)
    service: Service = app.state.service
    with _told_to_end(lambda: service.unready == "loading") as told:
        serving = asyncio.create_task(server.serve([listener]))
        loading = load()
        try:
            model = await asyncio.to_thread(loading.__enter__)
            try:
                async with AsyncModel(model, max_queue=max_queue, queue_seconds=queue_seconds) as served:
                    service.open(served)
                    ready(model)
                    await told.wait()
                    service.draining = True
                    if under_way := served.stats().running:
                        log.info(ENDING, under_way, settings.drain_seconds)
                    await served.drain(settings.drain_seconds)
                    server.should_exit = True
                    await serving
            finally:
                service.close()
                await asyncio.to_thread(loading.__exit__, None, None, None)
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn closes its port at the first signal; here who asks in the meantime is to be told why not."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _told_to_end(loading: Callable[[], bool]) -> Iterator[asyncio.Event]:
    """Set by SIGTERM or SIGINT; the second of them ends the process, as does the first while the model is `loading`."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(number: int) -> None:
        if told.is_set() or loading():
            os._exit(128 + number)
        told.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        yield told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
