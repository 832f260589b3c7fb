"""The whole server with many clients at once: what some of them do is nothing to the others."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
import ernie_rt
from ernie_rt import Model
from ernie_rt_serve.app import make_app
from support.exchanges import Told, at_once, exchange, heard, message, percentile
from support.held_up import free, until
from support.server_process import server_process
from support.serving import SETTINGS, Served, ask, run, serving

CHAT = "/v1/chat/completions"
SEQUENCES = 16
BUFFER_BYTES = 256 << 10


@pytest.fixture(scope="module")
def exact() -> Iterator[Model]:
    """The demo model in deterministic mode."""
    with ernie_rt.load(
        "demo", backend="eager", max_sequences=SEQUENCES, max_context=256, threads=1, deterministic=True
    ) as model:
        yield model


def wish(number: int, tokens: int, **fields: object) -> dict[str, object]:
    """A request whose answer has so many tokens."""
    messages = [{"role": "user", "content": f"How many grams are in {number} kilograms?"}]
    return {"messages": messages, "max_tokens": tokens, "ignore_eos": True, **fields}


def drawn(number: int, tokens: int) -> dict[str, object]:
    """One with numbers that tell the bits of logits."""
    return wish(number, tokens, temperature=0.7, seed=number, logprobs=True, top_logprobs=2, stream=True)


async def read(url: str, body: object) -> Told:
    async with exchange(url, CHAT, body) as answer:
        assert answer.status == 200
        return await heard(answer.events())


@pytest.mark.parametrize(
    ("streams", "rounds", "wishes", "tokens"),
    [(40, 1, 3, 10), pytest.param(200, 3, 20, 24, marks=pytest.mark.long)],
    ids=["40", "200"],
)
def test_streams_that_are_cut_leave_nothing_and_change_nothing(
    exact: Model, caplog: pytest.LogCaptureFixture, streams: int, rounds: int, wishes: int, tokens: int
) -> None:
    """Three in ten are cut at any event, by FIN or by RST. That bits do differ without deterministic mode is in
    tests/backends/test_deterministic.py."""
    dice = random.Random(1)

    async def cut(url: str, body: object, most: int, reset: bool) -> None:
        async with exchange(url, CHAT, body) as answer:
            await heard(answer.events(), most)
            if reset:
                answer.reset()

    async def body(url: str) -> None:
        alone = [await read(url, drawn(number, tokens)) for number in range(wishes)]
        for _ in range(rounds):
            before, cuts = exact.engine.stats(), set(dice.sample(range(streams), streams * 3 // 10))
            cutting = [
                cut(url, drawn(number % wishes, tokens), dice.randint(1, tokens), dice.random() < 0.5)
                for number in cuts
            ]
            whole = [number for number in range(streams) if number not in cuts]
            reading = [read(url, drawn(number % wishes, tokens)) for number in whole]
            told, _ = await asyncio.gather(asyncio.gather(*reading), asyncio.gather(*cutting))
            await asyncio.wait_for(until(lambda: free(exact)), 1)
            for number, each in zip(whole, told, strict=True):
                assert each.said == alone[number % wishes].said
            after = exact.engine.stats()
            assert after.finished["cancelled"] > before.finished["cancelled"] and after.failures == before.failures
            mean = (after.batched - before.batched) / (after.steps - before.steps)
            assert mean > SEQUENCES / 2
            print(f"mean batch {mean:.1f}, cancelled {after.finished['cancelled'] - before.finished['cancelled']}")

    with caplog.at_level(logging.ERROR), serving(exact) as server:
        run(lambda: body(server.url), 180)
    assert not caplog.records


@pytest.mark.long
def test_five_hundred_requests_at_once() -> None:
    """All come before the first is read, so that the last refusal waits for hundreds of others to be made."""
    sequences, queue, requests = 16, 32, 500
    options = ("--max-sequences", str(sequences), "--max-queue", str(queue), "--threads", "1", "--quiet")
    with server_process(*options) as server:
        alive: list[float] = []
        done = threading.Event()

        def probe() -> None:
            while not done.wait(0.01):
                (reply,) = at_once(server.url, [message("/health", None, "GET")])
                assert reply.status == 200
                alive.append(reply.seconds)

        probing = threading.Thread(target=probe)
        probing.start()
        replies = at_once(server.url, [message(CHAT, wish(number, 300)) for number in range(requests)])
        done.set()
        probing.join()
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) == {200, 429} and sequences + queue <= statuses[200] < requests / 2
    refused = [reply for reply in replies if reply.status == 429]
    assert all(int(reply.headers["retry-after"]) >= 1 and b"queue_full" in reply.body for reply in refused)
    seconds = [reply.seconds for reply in refused]
    print(f"{statuses}, refusals p50 {percentile(seconds, 50):.3f} p99 {percentile(seconds, 99):.3f} s")
    print(f"health of {len(alive)} p50 {percentile(alive, 50):.4f} p99 {percentile(alive, 99):.4f} s")
    assert percentile(seconds, 99) < 1 and percentile(alive, 99) < 0.05


async def sip(server: Served, body: object) -> None:
    """Read an answer at one byte a second."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection, suppress(ConnectionResetError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (server.host, server.port))
        await loop.sock_sendall(connection, message(CHAT, body))
        while await loop.sock_recv(connection, 1):
            await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("readers", "tokens", "stall"),
    [(4, 20, 0.2), pytest.param(50, 60, 2.0, marks=pytest.mark.long)],
    ids=["4", "50"],
)
def test_slow_readers_are_nothing_to_the_others_and_let_go(readers: int, tokens: int, stall: float) -> None:
    buffers: list[int] = []

    async def watch(server: Served) -> None:
        while True:
            buffers.extend(
                connection.transport.get_write_buffer_size()  # type: ignore[union-attr]
                for connection in tuple(server.server.server_state.connections)
            )
            await asyncio.sleep(0.005)

    async def normal(server: Served) -> list[Told]:
        bodies = [wish(number, tokens, stream=True) for number in range(readers)]
        return await asyncio.gather(*(read(server.url, body) for body in bodies))

    def gap(told: list[Told]) -> float:
        return percentile([gap for each in told for gap in each.gaps], 95)

    async def body(server: Served) -> None:
        alone = await normal(server)
        watching = asyncio.create_task(watch(server))
        slow = [wish(number, 900, stream=True, logprobs=True, top_logprobs=20) for number in range(readers)]
        sipping = [asyncio.create_task(sip(server, each)) for each in slow]
        beside = await normal(server)
        await until(lambda: free(model) and not server.server.server_state.connections)
        for task in [watching, *sipping]:
            task.cancel()
        await asyncio.gather(watching, *sipping, return_exceptions=True)
        assert [each.text for each in beside] == [each.text for each in alone]
        assert model.engine.stats().finished == {"stop": 0, "length": 2 * readers, "cancelled": readers, "error": 0}
        assert 0 < max(buffers) <= BUFFER_BYTES
        print(f"p95 alone {gap(alone):.4f} s, beside {gap(beside):.4f} s; buffers {max(buffers)} bytes")
        if readers >= SEQUENCES:  # with fewer the steps are larger
            assert gap(beside) < 1.5 * gap(alone)

    with (
        ernie_rt.load("demo", backend="onnx", max_sequences=SEQUENCES, max_context=1024, threads=1) as model,
        serving(model, replace(SETTINGS, stall_seconds=stall)) as server,
    ):
        run(lambda: body(server), 120)


@pytest.mark.parametrize(
    ("requests", "tokens"), [(8, 14), pytest.param(64, 40, marks=pytest.mark.long)], ids=["8", "64"]
)
def test_a_cache_for_four_serves_many(requests: int, tokens: int) -> None:
    """Sequences lose their rows to others and are computed anew: nobody notices."""

    async def told(app: Any, number: int) -> object:
        reply = await ask(app, "POST", CHAT, drawn(number, tokens) | {"stream": False})
        assert reply.status == 200
        (choice,) = reply.json["choices"]
        return choice

    async def body() -> None:
        async with ernie_rt.AsyncModel(model) as served:
            app = make_app(served, SETTINGS)
            alone = [await told(app, number) for number in range(requests)]
            assert not served.stats().preemptions
            assert await asyncio.gather(*(told(app, number) for number in range(requests))) == alone
            print(f"preemptions {served.stats().preemptions}")
            assert served.stats().preemptions > 0 and free(model)

    longest = 48 + tokens  # of a prompt and its answer
    with ernie_rt.load(
        "demo", backend="eager", max_sequences=SEQUENCES, max_context=longest, cache_tokens=4 * longest, threads=1,
        deterministic=True,
    ) as model:  # fmt: skip
        run(body, 180)
