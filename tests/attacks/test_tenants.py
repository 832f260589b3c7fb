"""What one key could learn of another's prompts, or take from it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import ernie_rt
from ernie_rt import Model
from ernie_rt.runtime.pages import PagePool
from ernie_rt_serve import structured
from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import make_app
from ernie_rt_serve.settings import Settings
from support.held_up import until
from support.serving import Reply, Served, ask, run, serving

CHAT = "/v1/chat/completions"
LONG = "How many metres are in 7 kilometres, and how many in 12? " * 14
"""Some hundreds of tokens."""


def post(server: Served, key: str, text: str = LONG, **fields: object) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, **fields}
    reply = httpx2.post(f"{server.url}{CHAT}", json=body, headers={"x-api-key": key}, timeout=30)
    assert reply.status_code == 200, reply.text
    usage: dict[str, Any] = reply.json()["usage"]
    return usage


def cached(usage: dict[str, Any]) -> int:
    tokens: int = usage["prompt_tokens_details"]["cached_tokens"]
    return tokens


def alike() -> tuple[str, str]:
    """Two keys whose digests begin with the same eight digits, which are all that the log has of them."""
    seen: dict[bytes, str] = {}
    for number in itertools.count():
        key = f"sk-{number}"
        start = hashlib.sha256(key.encode()).digest()[:4]
        if start in seen:
            return seen[start], key
        seen[start] = key
    raise AssertionError


def test_keys_that_look_alike_in_the_log_share_nothing(demo: Model) -> None:
    one, other = alike()
    keys = Keys.of([one, other])
    first, second = (keys.tenant({"x-api-key": key}) for key in (one, other))
    assert first is not None and second is not None and first != second and first[:8] == second[:8]
    with serving(demo, Settings("demo", keys=keys)) as server:
        assert cached(post(server, one)) == 0 < cached(post(server, one))
        assert cached(post(server, other)) == 0


SALTS = ("", "key ", "salt ", "key {}", "salt key {}", "\0", "{}")


def test_no_salt_leads_to_what_a_key_has(locked: Served) -> None:
    tenant = Keys.of(["sk-first"]).tenant({"x-api-key": "sk-first"})
    text = f"{LONG} Salted."
    assert cached(post(locked, "sk-first", text)) < 20
    for salt in SALTS[1:]:
        assert cached(post(locked, "sk-second", text, cache_salt=salt.format(tenant))) == 0, salt
    assert cached(post(locked, "sk-second", text, reuse_after_change=True)) == 0


def test_rows_on_disk_are_those_of_their_key_alone(tmp_path: Path) -> None:
    """After a restart as before it; and a file that was put in the place of another one is none."""
    folder = tmp_path / "rows"

    def ask_after_a_restart(*keys: str) -> list[int]:
        with (
            ernie_rt.load("demo", backend="onnx", max_context=512, threads=1, cache_dir=folder) as model,
            serving(model, Settings("demo", keys=Keys.of(["a", "b"]))) as server,
        ):
            return [cached(post(server, key)) for key in keys]

    assert ask_after_a_restart("a") == [0]
    (kept,) = folder.glob("*.rows")
    found = ask_after_a_restart("b", "a", "b")
    assert found[0] == 0 and found[1] >= 256 and found[2] > 0, "of b's own, by now"
    (other,) = set(folder.glob("*.rows")) - {kept}
    other.write_bytes(kept.read_bytes())
    found = ask_after_a_restart("b", "a")
    assert found[0] == 0 and found[1] >= 256


def test_nobody_goes_before_other_keys(locked: Served, server: Served) -> None:
    """Who waits takes turns by key. A key that chose its own place would keep the others waiting for ever."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "prompt": "Hi"}
    headers = {"x-api-key": "sk-first"}
    for path in (CHAT, "/v1/completions"):
        for priority in (-1, -(2**31)):
            refused = httpx2.post(f"{locked.url}{path}", json=body | {"priority": priority}, headers=headers)
            assert refused.status_code == 400 and refused.json()["error"]["param"] == "priority"
        later = httpx2.post(f"{locked.url}{path}", json=body | {"priority": 5}, headers=headers)
        assert later.status_code == 200
        assert httpx2.post(f"{server.url}{path}", json=body | {"priority": -5}).status_code == 200, "all are the same"


def test_formats_of_one_key_do_not_hold_up_those_of_another(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    opened = threading.Event()

    def compile_slowly(task: Any, grammars: Any) -> None:
        begun.append(task.format.source)
        assert task.format.source == "b" or opened.wait(20)

    monkeypatch.setattr(structured, "constraint", compile_slowly)

    async def body() -> None:
        async with ernie_rt.AsyncModel(demo) as served:
            app = make_app(served, Settings("demo", keys=Keys.of(["a", "b"])))

            def wish(key: str) -> asyncio.Task[Reply]:
                asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
                format = {"structured_outputs": {"regex": key}}
                return asyncio.create_task(ask(app, "POST", CHAT, asked | format, {"x-api-key": key}))

            many = [wish("a") for _ in range(10)]
            await until(lambda: bool(begun))
            assert (await wish("b")).status == 200
            assert not any(task.done() for task in many) and sorted(begun) == ["a", "b"]
            opened.set()
            assert {reply.status for reply in await asyncio.gather(*many)} == {200}
            app.state.service.close()

    run(body)


def test_prompts_of_one_key_do_not_hold_up_those_of_another(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """To encode long text takes seconds, in a few threads."""
    prompt, opened = Model.prompt, threading.Event()
    begun: list[str] = []

    def slow(model: Model, messages: Any, *given: Any, **options: Any) -> Any:
        begun.append(messages[0]["content"])
        assert messages[0]["content"] == "b" or opened.wait(20)
        return prompt(model, messages, *given, **options)

    monkeypatch.setattr(Model, "prompt", slow)

    async def body() -> None:
        async with ernie_rt.AsyncModel(demo) as served:
            app = make_app(served, Settings("demo", keys=Keys.of(["a", "b"])))

            def tokens(path: str, key: str) -> asyncio.Task[Reply]:
                asked = {"messages": [{"role": "user", "content": key}], "max_tokens": 1}
                return asyncio.create_task(ask(app, "POST", path, asked, {"x-api-key": key}))

            many = [tokens(path, "a") for path in ("/tokenize", CHAT, "/v1/messages/count_tokens") for _ in range(20)]
            await until(lambda: len(begun) >= 2)
            assert (await tokens("/tokenize", "b")).status == (await tokens(CHAT, "b")).status == 200
            assert not any(task.done() for task in many) and begun.count("a") == 2
            opened.set()
            assert {reply.status for reply in await asyncio.gather(*many)} == {200}
            app.state.service.close()

    run(body)


@pytest.mark.parametrize("requests", [24, pytest.param(1000, marks=pytest.mark.long)])
def test_rows_that_others_had_are_never_read(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """Pages are filled with NaN when they change hands: what reads one number of them fails, or says something else."""
    dice = np.random.default_rng(1)
    asked = [
        f"How many {'grams' if n % 2 else 'metres'} are in {n % 9} kilo? " * dice.integers(1, 9)
        for n in range(requests)
    ]
    options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True, "temperature": 0.8, "seed": 3}

    def answers(model: Model) -> list[list[int]]:
        return model.generate_batch(asked, **options)

    def load() -> Model:
        return ernie_rt.load("demo", backend="eager", max_context=256, cache_tokens=400, max_sequences=6, threads=1)

    pytest.importorskip("torch")
    with load() as model:
        clean = answers(model)
    with load() as model:
        executable: Any = model.engine._executable
        size = executable.read_rows(np.zeros(0, np.int32)).shape[1]
        rows: Any = model.engine._scheduler.rows
        take, taken = PagePool.take, []

        def poisoned(pool: PagePool, after: int | None = None) -> int:
            page = take(pool, after)
            taken.append(page)
            for copy in rows.copies:  # before anything is computed, and this page may be what they read
                executable.copy(copy.source, copy.destination, copy.length)
            rows.copies.clear()
            place = np.arange(page * rows._size, (page + 1) * rows._size, dtype=np.int32)
            executable.write_rows(place, np.full((rows._size, size), 255, np.uint8))
            return page

        monkeypatch.setattr(PagePool, "take", poisoned)
        assert answers(model) == clean
        assert len(taken) > 3 * len(set(taken)), "pages changed hands"


@pytest.mark.long
def test_how_soon_an_answer_begins_tells_nothing_of_other_keys(demo: Model) -> None:
    """Of prompts that another key has asked for already, and of prompts that nobody has; those of its own do tell."""

    async def body() -> None:
        async with ernie_rt.AsyncModel(demo) as served:
            app = make_app(served, Settings("demo", keys=Keys.of(["a", "b"])))

            async def seconds(key: str, text: str) -> float:
                asked = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
                began = time.perf_counter()
                assert (await ask(app, "POST", CHAT, asked, {"x-api-key": key})).status == 200
                return time.perf_counter() - began

            known, unknown, own = [], [], []
            for number in range(200):
                text = f"{number} {LONG}"
                await seconds("a", text)
                probes = [(known, text), (unknown, f"{number + 1000} {LONG}")]
                for taken, probe in probes if number % 2 else probes[::-1]:
                    taken.append(await seconds("b", probe))
                own.append(await seconds("b", text))
            app.state.service.close()
        print([statistics.median(each) for each in (known, unknown, own)], p_value(known, unknown))
        assert p_value(known, unknown) > 0.05 and p_value(own, unknown) < 1e-9

    run(body, 300)


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Of Mann and Whitney's test, two-sided: how likely two samples of one distribution differ so much."""
    greater = sum((a > b) + (a == b) / 2 for a in one for b in other)
    mean, spread = len(one) * len(other) / 2, math.sqrt(len(one) * len(other) * (len(one) + len(other) + 1) / 12)
    return math.erfc(abs(greater - mean) / spread / math.sqrt(2))
