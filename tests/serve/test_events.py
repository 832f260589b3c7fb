"""Answers on their way: failures before and after the first token, clients that leave, readers that are slow."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import Any

import pytest

from ernie_rt import Model
from ernie_rt.errors import (
    BackendError,
    CapacityError,
    OptionError,
    OverloadError,
    PromptError,
    TemplateError,
    TokenizerError,
)
from ernie_rt_serve.answers import MOST_PIECES
from support.serving import Reply, ask, run, said, scripted_app

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "secret words"}]}
STREAM = ASK | {"stream": True}
FAULTS = [
    (OptionError("temperature is out of range"), 400, None),
    (PromptError("the prompt is empty"), 400, None),
    (CapacityError("more than the cache holds"), 400, None),
    (TemplateError("too many turns", where="/models/x/chat_template.jinja"), 400, None),
    (OverloadError("too many wait", "full", 2.3), 429, "3"),
    (OverloadError("waited too long", "expired"), 503, "1"),
    (OverloadError("the end", "draining"), 503, "1"),
    (BackendError("a kernel at 0x7fffdeadbeef failed", where="/usr/lib/x.so"), 500, None),
    (TokenizerError("broken", where="/models/x/tokenizer.json"), 500, None),
    (MemoryError("secret words"), 500, None),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("begun", [False, True], ids=["refused", "before its first token"])
@pytest.mark.parametrize(("error", "status", "retry"), FAULTS, ids=lambda value: type(value).__name__)
def test_a_failure_before_the_first_token_has_a_status(
    demo: Model, error: Exception, status: int, retry: str | None, begun: bool, stream: bool
) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo, [error] if begun else error)
        reply = await ask(app, "POST", CHAT, ASK | {"stream": stream})
        assert (reply.status, reply.headers.get("retry-after")) == (status, retry)
        assert reply.error["message"] and reply.headers["content-type"] == "application/json"
        assert not re.search(rb"0x[0-9a-f]{8}|/models|/usr|secret", reply.body)
        draining = isinstance(error, OverloadError) and error.reason == "draining"
        assert (reply.headers.get("connection") == "close") == draining

    run(body)


def test_a_failure_later_is_an_event_and_the_stream_ends_as_ever(demo: Model) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo, [*said("a", finish=None), BackendError("x", where="/usr")], said("b", "c"))
        reply = await ask(app, "POST", CHAT, STREAM)
        assert reply.status == 200 and reply.events[-1]["error"]["type"] == "server_error"
        assert reply.body.endswith(b"data: [DONE]\n\n") and b"/usr" not in reply.body
        assert (await ask(app, "POST", CHAT, ASK)).json["choices"][0]["message"]["content"] == "bc"

    run(body)


def test_an_answer_that_the_server_ends_is_no_whole_one(demo: Model) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo, said("a", finish="cancelled"), said("a", finish="cancelled"))
        assert (await ask(app, "POST", CHAT, ASK)).status == 503
        assert (await ask(app, "POST", CHAT, STREAM)).status == 503

    run(body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", [0, 2])
def test_a_client_that_leaves_ends_its_answer_at_once(demo: Model, stream: bool, words: int) -> None:
    async def body() -> None:
        never, gone = asyncio.Event(), asyncio.Event()
        app, served = scripted_app(demo, [*said(*"ab"[:words], finish=None), never])
        asking = asyncio.create_task(ask(app, "POST", CHAT, ASK | {"stream": stream}, gone=gone))
        await asyncio.sleep(0.05)
        assert not asking.done() and not served.streams[0].cancelled
        gone.set()
        reply = await asking
        assert served.streams[0].cancelled and b"[DONE]" not in reply.body

    run(body)


def test_one_of_several_answers_that_fails_ends_all(demo: Model) -> None:
    async def body() -> None:
        never = asyncio.Event()
        app, served = scripted_app(demo, [never], [*said("a", finish=None), BackendError("x")])
        assert (await ask(app, "POST", CHAT, ASK | {"n": 2})).status == 500
        assert served.streams[0].cancelled
        app, served = scripted_app(demo, [never], OverloadError("full"))
        assert (await ask(app, "POST", CHAT, ASK | {"n": 2})).status == 429
        assert served.streams[0].cancelled, "what was queued is taken back"

    run(body)


def test_several_failures_at_once_are_one(demo: Model, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo, *[[BackendError("x")] for _ in range(4)])
        assert (await ask(app, "POST", CHAT, STREAM | {"n": 4})).status == 500
        gc.collect()
        await asyncio.sleep(0)

    run(body)
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["ernie_rt_serve"]


def test_a_slow_reader_gets_fewer_and_longer_events(demo: Model) -> None:
    async def body() -> None:
        letters = [chr(97 + n % 26) for n in range(500)]
        waits = asyncio.Event()

        async def slow(reply: Reply) -> None:
            waits.set()

        app, _ = scripted_app(demo, [*said("!", finish=None), waits, *said(*letters)])
        reply = await ask(app, "POST", CHAT, STREAM, sent=slow)
        texts = [event["choices"][0]["delta"].get("content", "") for event in reply.events]
        assert "".join(texts) == "!" + "".join(letters)
        assert len(texts) < 15 and max(map(len, texts)) <= MOST_PIECES, "nor is any of them longer than that"

    run(body)


def test_answers_come_as_they_are_ready(demo: Model) -> None:
    async def body() -> None:
        other = asyncio.Event()

        async def heard(reply: Reply) -> None:
            if b'"index":1' in reply.body and b'"finish_reason":"stop"' in reply.body:
                other.set()

        app, served = scripted_app(demo, [other, *said("late")], said("early"))
        reply = await ask(app, "POST", CHAT, STREAM | {"n": 2, "seed": 2**63 - 1}, sent=heard)
        order = [event["choices"][0]["index"] for event in reply.events]
        assert order == sorted(order, reverse=True)
        first, second = served.asked
        assert first.like is None and second.like is served.streams[0]
        assert (first.options["seed"], second.options["seed"]) == (2**63 - 1, 2**63)

    run(body)


def test_what_a_request_asks_for_arrives(demo: Model) -> None:
    async def body() -> None:
        app, served = scripted_app(demo, said("a"))
        fields: dict[str, Any] = {
            "max_completion_tokens": 7, "max_tokens": 9, "stop": "x", "stop_token_ids": [5], "ignore_eos": True,
            "temperature": 1, "top_k": -1, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.1,
            "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"3": -1}, "min_tokens": 2, "seed": -1,
            "logprobs": True, "top_logprobs": 4, "priority": -5, "cache_salt": "s", "thinking_budget": 3,
        }  # fmt: skip
        assert (await ask(app, "POST", CHAT, ASK | fields)).status == 200
        (asked,) = served.asked
        assert asked.options == {
            "max_new_tokens": 7, "stop": ["x"], "stop_ids": [5], "ignore_eos": True, "temperature": 1.0, "top_k": 0,
            "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 1.0, "frequency_penalty": -1.0,
            "logit_bias": {3: -1.0}, "min_new_tokens": 2, "seed": 2**64 - 1, "logprobs": 4, "thinking_budget": 3,
        }  # fmt: skip
        assert (asked.caller.tenant, asked.caller.priority, asked.caller.salt) == ("", -5, b"salt s")

    run(body)
