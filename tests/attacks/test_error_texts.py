"""What errors say to strangers, and what the log keeps: no address, no path, and nothing of anybody's prompt."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_rt import AsyncModel, Model
from ernie_rt.errors import (
    BackendError,
    CheckpointError,
    ErnieRtError,
    FileFormatError,
    ForkError,
    GraphError,
    IntegrityError,
    ModelNotFoundError,
    PluginError,
    TemplateError,
    TokenizerError,
    UnsafePathError,
    WriteError,
)
from ernie_rt_serve import decoding
from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import ENTRIES, make_app
from ernie_rt_serve.settings import Settings
from support.pictures import kept_workers, picture, seeing_app, seeing_model, uri
from support.serving import Reply, ask, run, said, scripted_app

SECRET = "Rumpelstilzchen"
"""Stands for what somebody has asked."""
FOLDER = "/srv/models/of-a-customer"
ADDRESS = "<PIL.Image object at 0x7f3a5c00d1e0>"
TELLING = f"{ADDRESS} in {FOLDER}/model.safetensors, line 7: {SECRET}"
LEAKS = re.compile(rb"0x[0-9a-f]{8,}|/srv/|/[a-z_]+/[a-z_-]+\.[a-z]+|Traceback|site-packages|File \"|<[\w.]+ object")
CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
TALK: dict[str, Any] = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 5}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: TALK, COMPLETIONS: {"prompt": SECRET}, RESPONSES: {"input": SECRET}, MESSAGES: TALK,
    "/v1/messages/count_tokens": TALK, "/tokenize": TALK, "/detokenize": {"tokens": [5]},
}  # fmt: skip
OURS = (
    ErnieRtError, BackendError, CheckpointError, FileFormatError, ForkError, GraphError, IntegrityError,
    ModelNotFoundError, PluginError, TokenizerError, UnsafePathError, WriteError,
)  # fmt: skip
OTHERS = (
    RuntimeError, MemoryError, AssertionError, KeyError, ValueError, OSError, UnicodeError, RecursionError, ImportError,
    TimeoutError, PermissionError, asyncio.InvalidStateError, ExceptionGroup,
)  # fmt: skip


def errors() -> Iterator[Exception]:
    for ours in OURS:
        yield ours(SECRET, where=FOLDER, expected=ADDRESS, found=TELLING, hint=f"Look at {FOLDER}")
    yield TemplateError("the chat template is broken", where=f"{FOLDER}/chat_template.jinja")
    for other in OTHERS:
        yield other(TELLING, [ValueError(TELLING)]) if other is ExceptionGroup else other(TELLING)
    yield FileNotFoundError(2, SECRET, f"{FOLDER}/config.json")


def tells_nothing(reply: Reply) -> None:
    everything = reply.body + repr(reply.headers).encode()
    assert not LEAKS.search(everything) and SECRET.encode() not in everything, everything


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


PLACES = ("generate", "prompt", "encode", "decode")


def break_at(place: str, model: Model, served: Any, error: Exception, patch: pytest.MonkeyPatch) -> None:
    match place:
        case "generate":
            patch.setattr(served, "generate", raising(error))
            patch.setattr(served, "chat", raising(error))
        case "prompt":
            patch.setattr(Model, "prompt", raising(error))
        case "encode" | "decode":
            patch.setattr(type(model.tokenizer), "encode_template" if place == "encode" else "decode", raising(error))


@pytest.mark.parametrize("place", PLACES)
def test_what_fails_within_tells_nothing_of_itself(demo: Model, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        app, served = scripted_app(demo)
        served.otherwise = said("a")
        for number, error in enumerate(errors()):
            with monkeypatch.context() as patch:
                break_at(place, demo, served, error, patch)
                for turn, (path, content) in enumerate(BODIES.items()):
                    reply = await ask(app, "POST", path, content | {"stream": (number + turn) % 2 == 0})
                    if reply.status == 200:
                        assert place != "generate" or path not in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
                        continue
                    assert reply.status == (400 if isinstance(error, TemplateError) else 500), (path, error)
                    tells_nothing(reply)
                    assert reply.error["message"] and ("type" in reply.json) == path.startswith("/v1/messages")

    run(body)


def test_what_fails_in_the_middle_of_a_stream_tells_nothing_either(demo: Model) -> None:
    async def body() -> None:
        for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES):
            for error in errors():
                app, _ = scripted_app(demo, [*said("a", finish=None), error])
                reply = await ask(app, "POST", path, BODIES[path] | {"stream": True})
                assert reply.status == 200 and ("error" in reply.body.decode() or "failed" in reply.body.decode())
                reply.parts = [part for part in reply.parts if b"resp_" not in part or b"failed" in part]
                assert not LEAKS.search(reply.body), reply.body
                assert reply.body.count(SECRET.encode()) == 0 or (path == RESPONSES and error.args)

    run(body)


def test_what_decodes_pictures_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri(picture())}}]}]}

    async def body(model: Model) -> None:
        for error in errors():
            app, _ = seeing_app(model)
            monkeypatch.setattr(decoding.Decoders, "_decode", raising(error))
            for path in (CHAT, "/tokenize"):
                reply = await ask(app, "POST", path, asked)
                assert reply.status in (400, 500)
                tells_nothing(reply)
            assert app.state.service.held == 0

    with kept_workers(), seeing_model(tmp_path) as model:
        run(lambda: body(model))


REFUSED: tuple[tuple[str, str, object], ...] = (
    ("POST", CHAT, TALK | {"n": 99}),
    ("POST", CHAT, TALK | {"stop": [SECRET, ""]}),
    ("POST", CHAT, TALK | {"reasoning_effort": SECRET}),
    ("POST", CHAT, TALK | {"model": SECRET}),
    ("POST", CHAT, TALK | {"max_tokens": 10**6}),
    ("POST", CHAT, {"messages": [{"role": SECRET, "content": "a"}]}),
    ("POST", CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET}}]}]}),
    ("POST", CHAT, {"messages": [{"role": "user", "content": SECRET * 10_000}]}),
    ("POST", CHAT, f'{{"messages": "{SECRET}'.encode()),
    ("POST", CHAT, f'{{"{SECRET}": NaN, "messages": []}}'.encode()),
    ("POST", CHAT, f'{{"a": "{SECRET}\\ud800"}}'.encode()),
    ("POST", COMPLETIONS, {"prompt": SECRET, "suffix": SECRET}),
    ("POST", COMPLETIONS, {"prompt": SECRET, "temperature": SECRET}),
    ("POST", COMPLETIONS, {"prompt": SECRET, "structured_outputs": {"choice": [SECRET] * 2000}}),
    ("POST", RESPONSES, {"input": SECRET, "previous_response_id": SECRET}),
    ("POST", RESPONSES, {"input": [{"type": "message", "role": "user", "content": 5}, SECRET]}),
    ("POST", MESSAGES, TALK | {"max_tokens": 0}),
    ("POST", MESSAGES, TALK | {"system": [{"type": "text"}, {"type": "text", "text": SECRET}]}),
    ("POST", "/detokenize", {"tokens": [-1], "model": "demo"}),
    ("PUT", CHAT, TALK),
    ("GET", "/v1/models/of-nobody", None),
)


def test_refusals_repeat_no_text_and_the_log_has_none(demo: Model, caplog: pytest.LogCaptureFixture) -> None:
    """Neither at INFO, nor of a key, nor of what was answered."""

    async def body() -> None:
        async with AsyncModel(demo) as served:
            app = make_app(served, Settings("demo", keys=Keys.of(["sk-of-somebody"])))
            for method, path, content in REFUSED:
                reply = await ask(app, method, path, content, {"x-api-key": "sk-of-somebody"})
                assert 400 <= reply.status < 500, (path, content)
                tells_nothing(reply)
            for path, content in BODIES.items():
                for headers in ({"x-api-key": "sk-of-somebody"}, {"authorization": f"Bearer {SECRET}"}):
                    reply = await ask(app, "POST", path, content, headers)
                    assert reply.status in (200, 401)
            app.state.service.close()

    with caplog.at_level(logging.INFO):
        run(body)
    assert len(caplog.records) > len(REFUSED)
    assert SECRET not in caplog.text and "sk-of-somebody" not in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_path_is_kept_short_and_has_no_characters_that_a_terminal_obeys(
    demo: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        app, _ = scripted_app(demo)
        for path in ("/\x1b]52;c;aaaa\x07", "/a\r\n2026 forged", "/" + "a" * 100_000, "/\u202egpj.exe", "/\x9b31m"):
            reply = await ask(app, "GET", path, headers={"x-request-id": "a\r\nb", "user-agent": "\x1b[31m"})
            assert reply.status == 404 and len(reply.body) < 500 and reply.body.isascii()

    with caplog.at_level(logging.INFO):
        run(body)
    assert len(caplog.records) == 5
    assert all(record.getMessage().isprintable() and len(record.getMessage()) < 400 for record in caplog.records)


def test_every_route_has_a_shape_for_its_errors() -> None:
    assert {entry.path for entry in ENTRIES if entry.method == "POST"} == set(BODIES)
