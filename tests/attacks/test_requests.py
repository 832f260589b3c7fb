"""Requests that ask for too much, for what cannot be, or for what no stranger may have: each is refused at once."""

from __future__ import annotations

import gc
import itertools
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette

from ernie_rt import AsyncModel, Model
from ernie_rt.errors import OptionError
from ernie_rt_serve.app import make_app
from ernie_rt_serve.grammars import Grammars
from ernie_rt_serve.settings import Settings
from ernie_rt_serve.structured import LOOKING_SECONDS, constraint
from ernie_rt_serve.task import Format, Task
from support.serving import Served, ask, run
from support.wire import told

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
BASE: dict[str, dict[str, Any]] = {
    CHAT: TALK,
    COMPLETIONS: {"prompt": "Hi"},
    RESPONSES: {"input": "Hi"},
    MESSAGES: TALK | {"max_tokens": 5},
    "/v1/messages/count_tokens": TALK,
    "/tokenize": TALK,
    "/detokenize": {"tokens": [5]},
}
"""Bodies that are right."""


class Row(NamedTuple):
    path: str
    fields: str
    param: str | None


def rows(field: str, values: Iterator[str] | tuple[str, ...], *paths: str, param: str | None = "") -> list[Row]:
    """Every value in a field of that name, of which the answer says that it is wrong."""
    told = field if param == "" else param
    return [Row(path, f'"{field}": {value}', told) for path in paths for value in values]


def many(value: str, count: int) -> str:
    return "[" + ",".join([value] * count) + "]"


BOTH, ANSWERED = (CHAT, COMPLETIONS), (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
HUGE = ("1" + "0" * 12, "1" + "0" * 29, "1e12", "1" + "0" * 300)
NO_COUNT = ("-1", "2.5", '"2"', "true", "[]", "{}", "1e1")
NO_NUMBER = ('"1"', "true", "[]", "{}", '"NaN"')
BEYOND = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400)
"""What is no JSON, or no number of 64 bits."""

FAN_OUT = [
    *rows("n", ("0", *HUGE, *NO_COUNT, "17", "1000000"), *BOTH),
    *rows("best_of", (*HUGE[:2], "2", "1000000"), *BOTH, param="best_of"),
    *rows("logprobs", ("21", "1000000", "-1", *HUGE[:2]), COMPLETIONS),
    *rows("logprobs", ("21", "1", '"true"'), CHAT),
    *rows("top_logprobs", ("21", "1000000", "-1", *HUGE[:2]), CHAT, RESPONSES),
    *rows("max_tokens", ("0", HUGE[1], *NO_COUNT), *BOTH, MESSAGES),
    *rows("max_tokens", HUGE[:1], *BOTH, param=None),
    *rows("max_output_tokens", ("0", *NO_COUNT), RESPONSES),
    *rows("top_k", ("-2", *NO_COUNT[1:]), *BOTH),
    *rows("min_tokens", NO_COUNT, *BOTH),
    *rows("thinking_budget", NO_COUNT, CHAT),
    *rows("seed", (*HUGE[1:2], str(2**63), str(-(2**63) - 1), "1.5", '"1"'), *BOTH),
    *rows("priority", (str(2**31), str(-(2**31) - 1), "0.5"), *BOTH),
    *rows("stop", (many('"x"', 17), many('"x"', 10_000)), *BOTH),
    *rows("stop", ('""', '"' + "x" * 257 + '"'), *BOTH),
    *rows("stop", ('["a", ""]',), *BOTH, param="stop[1]"),
    *rows("stop_sequences", (many('"x"', 17),), MESSAGES),
    *rows("stop_token_ids", (many("1", 1025),), *BOTH),
    *rows("tools", (many('{"type": "function", "function": {"name": "a"}}', 129),), CHAT),
    *rows("tools", (many('{"type": "function", "name": "a"}', 129),), RESPONSES),
    *rows("tools", (many('{"name": "a"}', 129),), MESSAGES, "/v1/messages/count_tokens"),
    *rows("prompt", (many('"a"', 65), many("[1]", 10_000), many('"a"', 100_000)), COMPLETIONS),
    Row(COMPLETIONS, '"prompt": ' + many('"a"', 33) + ', "n": 2', "prompt"),
]  # fmt: skip
NOT_FINITE = [
    *rows("temperature", BEYOND, *BASE, param=None),
    *[row for field in ("top_p", "min_p", "logit_bias") for row in rows(field, BEYOND[:2], CHAT, param=None)],
    *[
        row
        for field in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
        for row in rows(field, NO_NUMBER, *BOTH)
    ],
    *rows("temperature", ("1e308", "-1", "1e-320", "5e-324", "1e-46", "-1e-300"), *ANSWERED),
    *rows("top_p", ("0", "-0.0", "1e308", "1.0000001", "-1e-300"), *ANSWERED),
    *rows("min_p", ("1e308", "1.1", "-1e-300"), *BOTH),
    *rows("repetition_penalty", ("0", "-0.0", "1e308", "1e-320", "1e39"), *BOTH),
    *rows("presence_penalty", ("1e308", "-1e308", "1e39", "101"), *BOTH),
    *rows("frequency_penalty", ("1e308", "-1e308", "1e39", "101"), *BOTH),
    *rows("logit_bias", ('{"1": 1e308}', '{"1": -1e39}', '{"99999999": 1}'), *BOTH),
    *rows("logit_bias", ('{"9999999999": 1}',), *BOTH),
    *rows("logit_bias", ('{"-1": 1}', '{" 1": 1}', '{"1.0": 1}', '{"١": 1}', '{"": 1}', '{"1e1": 1}'), *BOTH),
    *rows("logit_bias", ("{" + ",".join(f'"{n}": 1' for n in range(1025)) + "}",), *BOTH),
    *rows("logit_bias", ('{"1": null}', '{"1": "1"}'), *BOTH, param="logit_bias[...]"),
]  # fmt: skip
TOKEN_IDS = [
    *rows("prompt", ("[-1]", "[99999999]", f"[{2**63}]", f"[{2**64}]", "[1" + "0" * 300 + "]", "[[1], [-1]]"),
          COMPLETIONS),
    *rows("prompt", ('""', "[[]]"), COMPLETIONS),
    *rows("prompt", ("[]", '[1, "a"]', '[[1], "a"]'), COMPLETIONS),
    *rows("prompt", ("[true]", "[null]", "[1.0]"), COMPLETIONS, param="prompt[0]"),
    *rows("prompt", ("{}", "1", "null", "true"), COMPLETIONS),
    *rows("prompt", (many("1", 100_000),), COMPLETIONS, param=None),
    *rows("stop_token_ids", ("[-1]", f"[{2**63}]", "[1" + "0" * 30 + "]"), *BOTH, param="stop_token_ids[0]"),
    *rows("tokens", ("[-1]", "[99999999]", f"[{2**64}]"), "/detokenize"),
]  # fmt: skip
NOT_FOR_STRANGERS = [
    *rows("prompt_embeds", ('"AAAA"', "[[0.5]]"), *BOTH),
    *rows("chat_template", ('"{{ 1 }}"',), CHAT, "/tokenize"),
    *rows("chat_template_kwargs", ('{"chat_template": "x"}', '{"enable_thinking": true}'), CHAT, "/tokenize"),
    *rows("documents", ('[{"text": "a"}]',), CHAT),
    *rows("continue_final_message", ("true",), CHAT, "/tokenize"),
    *rows("use_beam_search", ("true",), *BOTH),
    *[row for field in ("guided_json", "guided_regex", "guided_grammar") for row in rows(field, ('"a"',), *BOTH)],
    *rows("previous_response_id", ('"resp_1"',), RESPONSES),
    *rows("prompt", ('{"id": "pmpt_1"}',), RESPONSES),
    *rows("conversation", ('"conv_1"',), RESPONSES),
    *rows("mcp_servers", ('[{"type": "url", "url": "http://127.0.0.1/"}]',), MESSAGES),
    *rows("container", ('"c"',), MESSAGES),
    *[
        row
        for part in ('"image_embeds", "image_embeds": "AAAA"', '"input_audio", "input_audio": {"data": "AAAA"}')
        for row in rows("messages", (f'[{{"role": "user", "content": [{{"type": {part}}}]}}]',), CHAT,
                        param="messages[0].content[0].type")
    ],
    *rows("tools", ('[{"type": "mcp", "server_url": "http://127.0.0.1/"}]', '[{"type": "code_interpreter"}]'),
          RESPONSES, param="tools[0]"),
]  # fmt: skip
CORPUS = {"fan out": FAN_OUT, "not finite": NOT_FINITE, "token ids": TOKEN_IDS, "not for strangers": NOT_FOR_STRANGERS}


def body_of(row: Row) -> bytes:
    """The right body of a path with the fields of a row in the place of its own."""
    kept = {name: value for name, value in BASE[row.path].items() if not row.fields.startswith(f'"{name}"')}
    return json.dumps(kept).encode()[:-1] + b", " * bool(kept) + row.fields.encode() + b"}"


@pytest.mark.parametrize("kind", CORPUS)
def test_what_is_refused(demo: Model, kind: str) -> None:
    async def body() -> None:
        async with AsyncModel(demo) as served:
            app = make_app(served, Settings("demo"))
            finished = dict(served.stats().finished)
            await refused(app, CORPUS[kind])
            assert served.stats().finished | {"cancelled": finished["cancelled"]} == finished
            assert app.state.service.held == 0

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(body)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


async def refused(app: Starlette, these: list[Row]) -> None:
    for row in these:
        began = time.process_time()
        reply = await ask(app, "POST", row.path, body_of(row))
        where = f"{row.path} {row.fields[:80]}: {reply.body[:300]!r}"
        assert reply.status == 400, where
        assert reply.error["type"] == "invalid_request_error" and 10 < len(reply.error["message"]) < 600, where
        if not row.path.startswith("/v1/messages"):
            param = reply.error["param"]
            assert param == row.param or (row.param is None and param is None), where
        assert time.process_time() - began < 1, where


FORMATS: dict[str, dict[str, Any]] = {
    "no type": {"type": "nope"},
    "an open group": {"type": "string", "pattern": "(a"},
    "a reference back": {"type": "string", "pattern": r"(a)\1"},
    "an address": {"$ref": "http://127.0.0.1:9/schema"},
    "a path": {"$ref": "file:///etc/passwd"},
    "itself": {"$ref": "#"},
    "a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a negative length": {"type": "string", "minLength": -1},
    "a length beyond 64 bits": {"type": "string", "minLength": 10**30},
    "multiples of nothing": {"type": "integer", "multipleOf": 0},
    "nothing to choose from": {"enum": []},
    "too much to choose from": {"enum": [f"v{n}" for n in range(20_000)]},
    "what nobody knows": {"type": "array", "uniqueItems": True},
}


def test_impossible_formats_in_every_protocol(demo: Model) -> None:
    def wishes(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        named = {"name": "a", "schema": schema}
        yield CHAT, {"response_format": {"type": "json_schema", "json_schema": named}}
        yield COMPLETIONS, {"structured_outputs": {"json": schema}}
        yield RESPONSES, {"text": {"format": {"type": "json_schema", **named}}}
        yield MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": schema}}}

    async def body() -> None:
        async with AsyncModel(demo) as served:
            app, steps = make_app(served, Settings("demo")), served.stats().steps
            for name, schema in FORMATS.items():
                for path, fields in wishes(schema):
                    began = time.monotonic()
                    reply = await ask(app, "POST", path, BASE[path] | fields)
                    assert reply.status == 400 and time.monotonic() - began < 10, (name, path)
                    assert "json_schema" in reply.error["message"] and b"root:" not in reply.body, (name, path)
            assert served.stats().steps == steps
            app.state.service.close()

    run(body)


class Slow:
    """Grammars that take a while to compile, as they may take a second; each has a fault of its own, or all together
    have one that none has alone."""

    def __init__(self, seconds: float, together: bool = False) -> None:
        self.tried = 0
        self._seconds = seconds
        self._together = together

    def compiled(self, lark: str) -> Any:
        self.tried += 1
        time.sleep(self._seconds)
        if " | " in lark or not self._together:
            raise OptionError("the format cannot be used", found=str(self.tried))


TOOLS = tuple({"name": f"t{n}", "parameters": {"type": "object", "title": str(n)}} for n in range(64))


def test_what_is_wrong_with_a_format_is_not_looked_for_forever() -> None:
    """Each schema within it may have been made to take a second, and each tool's."""
    schema = {"type": "object", "properties": {f"a{n}": {"type": "integer", "multipleOf": n} for n in range(64)}}
    called = Task((), tools=TOOLS, tool_choice="required")
    for together in (False, True):
        slow: Any = Slow(0.3, together)
        began = time.monotonic()
        with pytest.raises(OptionError):
            constraint(called if together else Task((), format=Format("json_schema", schema)), slow)
        assert time.monotonic() - began < LOOKING_SECONDS + 2 and 1 < slow.tried < 10


def test_tools_are_compiled_together(demo: Model) -> None:
    """Not one by one before: each may take a second."""
    with Grammars(demo.tokenizer) as grammars:
        constraint(Task((), tools=TOOLS, tool_choice="required"), grammars)
        assert grammars.compiled.cache_info().misses == 1


LONG = 3 << 20


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (COMPLETIONS, "a long text"),
        *itertools.product((CHAT, RESPONSES, MESSAGES), ("a long text", "many messages", "a tool")),
    ],
)
def test_what_the_context_could_never_hold_is_not_encoded(
    demo: Model, monkeypatch: pytest.MonkeyPatch, path: str, what: str
) -> None:
    """That would take seconds, in which nobody else's is."""
    text = {"role": "user", "content": "a" * LONG if what == "a long text" else "a"}
    talk = [text] * (3000 if what == "many messages" else 1)
    tool: dict[str, Any] = {"name": "t", "description": "a" * LONG}
    fields: dict[str, Any] = {"input" if path == RESPONSES else "messages": talk}
    if path == COMPLETIONS:
        fields = {"prompt": text["content"]}
    elif what == "a tool":
        shapes = {
            CHAT: {"type": "function", "function": tool},
            RESPONSES: tool | {"type": "function"},
            MESSAGES: tool | {"input_schema": {"type": "object"}},
        }
        fields["tools"] = [shapes[path]]

    async def body() -> None:
        async with AsyncModel(demo) as served:
            app = make_app(served, Settings("demo"))
            monkeypatch.setattr(type(demo.tokenizer), "encode_template", lambda *_: pytest.fail("encoded"))
            reply = await ask(app, "POST", path, BASE[path] | fields)
            monkeypatch.undo()
        assert reply.status == 400 and "far longer than the context" in reply.error["message"]
        assert reply.error.get("code", "context_length_exceeded") == "context_length_exceeded"

    run(body)


def test_what_a_context_may_hold_is_encoded(demo: Model) -> None:
    """The longest pieces that there are, as many as have room."""
    tokenizer = demo.tokenizer
    pieces = [piece.decode("utf-8", "replace") for piece in tokenizer.pieces]
    longest = max((piece for piece in pieces if len(tokenizer.encode(piece * 8)) == 8), key=len)
    asked = {"messages": [{"role": "user", "content": longest * (demo.capacity - 60)}], "max_tokens": 1}

    async def body() -> None:
        async with AsyncModel(demo) as served:
            reply = await ask(make_app(served, Settings("demo")), "POST", CHAT, asked)
            assert reply.status == 200 and reply.json["usage"]["prompt_tokens"] > demo.capacity - 60

    run(body)


@pytest.mark.parametrize("requests", [200, pytest.param(3000, marks=pytest.mark.long)])
def test_broken_requests_leave_nothing(server: Served, requests: int) -> None:
    """No open file, no thread, no byte that counts as held, and memory that does not grow with them."""

    def storm(count: int) -> None:
        for number in range(count):
            row = every[number * 7 % len(every)]
            data = body_of(row)
            head = f"POST {row.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            whole = f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data
            match number % 4:
                case 0 | 1:
                    assert b" 400 " in told(server, whole)
                case 2:  # and leaves in the middle of it
                    with server.connect() as connection:
                        connection.sendall(whole[: number % len(whole)])
                case 3:
                    with server.connect() as connection:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                        connection.sendall(whole)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    every = [row for kind in CORPUS.values() for row in kind if len(row.fields) < 10_000]
    storm(requests)
    before, files = resident(), len(list(Path("/proc/self/fd").iterdir()))
    storm(requests)
    for _ in range(100):
        if server.service.held == 0 and len(list(Path("/proc/self/fd").iterdir())) <= files:
            break
        time.sleep(0.05)
    assert server.service.held == 0 and len(list(Path("/proc/self/fd").iterdir())) <= files
    assert resident() - before < 10 << 20
