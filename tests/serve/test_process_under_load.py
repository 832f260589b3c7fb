"""`ernie-rt serve` told to end, or killed, while it has much to do."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("torch")
from support.exchanges import exchange
from support.server_process import Process, server_process
from support.serving import run

CHAT = "/v1/chat/completions"
EXACT = ("--backend", "eager", "--deterministic", "--threads", "1", "--quiet")


def wish(text: str, tokens: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "ignore_eos": True}


def grams(number: int, tokens: int) -> dict[str, object]:
    """With numbers that tell the bits of logits."""
    return wish(f"How many grams are in {number} kilograms?", tokens) | {"logprobs": True, "top_logprobs": 2}


async def told(server: Process, body: object) -> tuple[int, Any]:
    """The status, and what was said, or why it was not."""
    async with exchange(server.url, CHAT, body) as answer:
        reply = await answer.json()
        return answer.status, reply["choices"][0] if answer.status == 200 else reply["error"]["code"]


def state(server: Process) -> tuple[int, int]:
    """How many requests run, and how many wait."""
    stats = httpx2.get(f"{server.url}/stats").json()
    return stats["requests_running"], stats["requests_waiting"]


@pytest.mark.parametrize(
    ("sequences", "tokens"), [(2, 40), pytest.param(32, 60, marks=pytest.mark.long)], ids=["2", "32"]
)
def test_told_to_end_it_ends_what_runs_and_turns_away_what_waits(sequences: int, tokens: int) -> None:
    """A grammar among the requests has seen to it that there is a child process, too."""

    async def body() -> None:
        wishes = [grams(number, tokens) for number in range(sequences)]
        alone = [await told(server, each) for each in wishes]
        status, _ = await told(server, wish("Hi", 5) | {"response_format": {"type": "json_object"}})
        assert status == 200
        asked = [
            asyncio.create_task(told(server, grams(number % sequences, tokens))) for number in range(2 * sequences)
        ]
        while state(server) != (sequences, sequences):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answered = await asyncio.gather(*asked)
        assert sorted(status for status, _ in answered) == [200] * sequences + [503] * sequences
        for number, (status, said) in enumerate(answered):
            assert (status, said) == (alone[number % sequences] if status == 200 else (503, "draining"))

    options = ("--max-sequences", str(sequences), "--max-queue", str(sequences), "--max-context", "512")
    with server_process(*EXACT, *options) as server:
        run(body, 120)
        assert server.process.wait(10) == 0 and server.alone


@pytest.mark.long
@pytest.mark.parametrize("seconds", [12])
def test_stopped_for_a_while_it_goes_on_where_it_was(seconds: float) -> None:
    """As a laptop that sleeps, for longer than headers and bodies may take: clocks have gone on meanwhile."""

    async def body() -> None:
        wishes = [wish(f"How many grams are in {number} kilograms?", 400) for number in range(2)]
        alone = [await told(server, each) for each in wishes]
        asked = [asyncio.create_task(told(server, each)) for each in wishes]
        await asyncio.sleep(0.05)
        os.kill(server.process.pid, signal.SIGSTOP)
        assert not any(task.done() for task in asked)
        late = asyncio.create_task(told(server, wishes[0]))
        await asyncio.sleep(seconds)
        os.kill(server.process.pid, signal.SIGCONT)
        assert await asyncio.gather(*asked) == alone and await late == alone[0]

    with server_process("--threads", "1", "--quiet", "--max-context", "512") as server:
        run(body, 60)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0 and server.alone


@pytest.mark.long
@pytest.mark.parametrize("kills", [20])
def test_killed_at_any_moment_it_starts_again(tmp_path: Path, kills: int) -> None:
    """While it keeps rows on disk, and takes some from there."""
    dice = random.Random(1)
    long = {number: f"{number} " * 150 for number in range(1, 13)}
    first: tuple[int, Any] | None = None

    async def busy(server: Process, seconds: float) -> None:
        asked = [asyncio.create_task(told(server, wish(long[number], 20))) for number in dice.sample(sorted(long), 6)]
        await asyncio.sleep(seconds)
        server.process.kill()
        for each in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(each, OSError | EOFError) or each[0] == 200

    async def body(server: Process) -> None:
        nonlocal first
        answered = await told(server, grams(7, 12) | {"messages": wish(long[7], 1)["messages"]})
        first = first or answered
        assert answered == first and answered[0] == 200
        await busy(server, dice.uniform(0, 1))

    options = (*EXACT, "--max-context", "1024", "--cache-dir", str(tmp_path / "rows"))
    for _ in range(kills):
        with server_process(*options) as server:
            run(lambda: body(server))
            assert server.process.wait() == -signal.SIGKILL and server.alone
    with server_process(*options) as server:
        reply = httpx2.post(f"{server.url}{CHAT}", json=wish(long[7], 1), timeout=30).json()
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] >= 256
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    print(f"{len(list((tmp_path / 'rows').iterdir()))} files")
