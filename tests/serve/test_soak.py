"""A server for minutes on end, with clients of every kind: it stays as large as it was."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.exchanges import exchange
from support.server_process import Process, server_process
from support.serving import run

CHAT = "/v1/chat/completions"
CLIENTS = 8
BROKEN: tuple[object, ...] = (
    {},
    {"messages": []},
    {"messages": "x"},
    {"n": 10**6},
    [1],
    "x",
    {"messages": [{"role": "x"}]},
)


def wish(dice: random.Random) -> dict[str, Any]:
    text = f"How many grams are in {dice.randrange(9)} kilograms? " * dice.randint(1, 12)
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "max_tokens": dice.randint(1, 40)}
    if dice.random() < 0.1:
        asked["response_format"] = {"type": "json_object"}
    if dice.random() < 0.2:
        asked |= {"n": 2, "temperature": 0.7, "logprobs": True, "top_logprobs": 3}
    return asked | {"stream": dice.random() < 0.5}


@pytest.mark.long
@pytest.mark.parametrize("seconds", [180])
def test_memory_and_files_stay_as_they_were(seconds: float) -> None:
    """One request of twenty is broken, and of one more the client leaves."""

    def resident(server: Process) -> int:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def files(server: Process) -> int:
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))

    async def client(server: Process, number: int, until: float) -> int:
        dice, answered = random.Random(number), 0
        while time.monotonic() < until:
            luck = dice.random()
            body = dice.choice(BROKEN) if luck < 0.05 else wish(dice)
            async with exchange(server.url, CHAT, body) as answer:
                assert answer.status == (400 if luck < 0.05 else 200), json.dumps(body)
                if luck > 0.95:
                    await asyncio.sleep(dice.uniform(0, 0.05))
                    answer.reset()
                    continue
                with suppress(asyncio.IncompleteReadError):
                    await answer._reader.read()
                answered += 1
        return answered

    async def crowd(server: Process, seconds: float) -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(client(server, number, until) for number in range(CLIENTS))))

    async def body() -> None:
        await crowd(server, seconds / 3)
        before, opened = resident(server), files(server)
        answered = await crowd(server, seconds * 2 / 3)
        grown = resident(server) - before
        print(f"{answered} answers; {before >> 20} MiB, {grown / (1 << 20):+.1f} MiB in {seconds * 2 / 3:.0f} s")
        assert grown < max(1 << 20, before // 50)
        assert files(server) <= opened + 2

    with server_process("--threads", "1", "--max-context", "1024", "--quiet") as server:
        run(body, 3 * seconds)
        assert not [line for line in server.said if "Traceback" in line]
