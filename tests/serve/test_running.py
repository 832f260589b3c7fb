"""A server from its first moment to its last."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from ernie_rt import Model
from ernie_rt.errors import CheckpointError, OptionError
from ernie_rt_serve import running
from ernie_rt_serve.app import make_app
from support.held_up import Gate, until
from support.serving import SETTINGS, run

PATH = "/v1/chat/completions"


def talk(number: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"How many grams are in {number} kilograms?"}]}


def text(reply: httpx2.Response) -> str:
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def test_told_to_end_it_ends_what_it_has_begun(
    demo: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running.log, "propagate", True)
    caplog.set_level("INFO", "ernie_rt_serve")
    alone = [demo.chat(talk(number)["messages"]).text for number in range(1, 8)]  # type: ignore[arg-type]

    async def body() -> None:
        with Gate(demo, monkeypatch) as gate:
            listener = running.bind("127.0.0.1", 0)
            ready = asyncio.Event()
            serving = asyncio.create_task(
                running.run(
                    listener,
                    SETTINGS,
                    lambda: nullcontext(demo),
                    lambda _: ready.set(),
                    max_queue=8,
                    queue_seconds=None,
                )
            )
            await ready.wait()
            port = listener.getsockname()[1]
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                asked = [
                    asyncio.create_task(client.post(PATH, json=talk(number), timeout=30)) for number in range(1, 8)
                ]
                stats = demo.engine.stats
                await until(lambda: (stats().running + stats().waiting) == 7)
                gate.once.release()
                await until(lambda: (stats().running, stats().waiting) == (4, 3))

                os.kill(os.getpid(), signal.SIGTERM)
                while (await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
                assert (await client.get("/ready")).json() == {"status": "draining"}
                assert (await client.get("/health")).status_code == 200
                late = await client.post(PATH, json=talk(9))
                assert (late.status_code, late.headers["connection"]) == (503, "close")
                await until(lambda: sum(task.done() for task in asked) == 3)
                begun = [number for number, task in enumerate(asked) if not task.done()]  # they come in any order
                queued = [task.result() for task in asked if task.done()]
                assert {(reply.status_code, reply.json()["error"]["code"]) for reply in queued} == {(503, "draining")}

                gate.open.set()
                answered = await asyncio.gather(*(asked[number] for number in begun))
                assert [text(reply) for reply in answered] == [alone[number] for number in begun]
            await asyncio.wait_for(serving, 10)
            assert "ending: 4 answers are under way, for at most 30 s; a second signal" in caplog.text
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=1)

    run(body)


def test_answers_that_take_too_long_are_cut(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        with Gate(demo, monkeypatch) as gate:
            listener = running.bind("127.0.0.1", 0)
            ready = asyncio.Event()
            settings = replace(SETTINGS, drain_seconds=0.1)
            serving = asyncio.create_task(
                running.run(
                    listener,
                    settings,
                    lambda: nullcontext(demo),
                    lambda _: ready.set(),
                    max_queue=8,
                    queue_seconds=None,
                )
            )
            await ready.wait()
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                asked = asyncio.create_task(client.post(PATH, json=talk(1), timeout=30))
                await until(lambda: demo.engine.stats().running == 1)
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.2)
                gate.open.set()
                assert (await asked).status_code == 503
            await asyncio.wait_for(serving, 10)

    run(body)


def test_it_answers_while_the_model_loads_and_ends_with_what_loading_raises() -> None:
    go = threading.Event()

    @contextmanager
    def loading() -> Iterator[Model]:
        go.wait(10)
        raise CheckpointError("a shard is missing")
        yield

    async def body() -> None:
        listener = running.bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        serving = asyncio.create_task(
            running.run(listener, SETTINGS, loading, lambda _: None, max_queue=8, queue_seconds=None)
        )
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).json() == {"status": "loading"}
            early = await client.post(PATH, json=talk(1))
            assert (early.status_code, early.json()["error"]["code"]) == (503, "loading")
            go.set()
            with pytest.raises(CheckpointError, match="a shard is missing"):
                await asyncio.wait_for(serving, 5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)

    run(body)


@pytest.mark.parametrize("host", ["256.0.0.1", "no.such.host.invalid", "", "é\ud800"])
def test_addresses_that_cannot_be(host: str) -> None:
    with pytest.raises(OptionError, match="cannot listen"):
        running.bind(host or "192.0.2.1", 1)


def test_as_many_connections_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        running.allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(before[1], running.MOST_FILES), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_rest_longer_than_proxies_keep_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    kept = re.search(r"keepalive (\d+)s", page)
    server = running.make_server(make_app(None, SETTINGS), SETTINGS)
    assert kept is not None and int(kept[1]) < server.config.timeout_keep_alive


def test_a_port_that_is_taken() -> None:
    with running.bind("127.0.0.1", 0) as taken, pytest.raises(OptionError, match="--port"):
        running.bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False), ("127.0.0.1.example.org", False), ("", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, own: bool) -> None:
    assert running.is_loopback(host) is own


def test_nothing_that_is_written_waits_for_an_acknowledgement() -> None:
    with running.bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
