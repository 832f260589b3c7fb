"""Bodies of requests, for every route of the server: right ones with a few places broken, and what is no body."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.openapi import describe
from ernie_rt_serve.protocols import anthropic_messages, openai_chat, openai_completions, openai_responses
from fuzz.mutations import TEXTS, changed, damaged, dumped, json_bytes
from fuzz.served import ALLOWED, KEY, LEAK, Server
from fuzz.target import Attempt, Target
from support.bodies import PROSE, RIGHT, Bodies
from support.scripted import write_chat_checkpoint
from support.serving import Reply, ask
from support.templates import THINKING

PATHS: Final = tuple(entry.path.replace("{name:path}", "demo") for entry in ENTRIES)
UNDONE: Final = {
    "/v1/chat/completions": openai_chat.UNDONE,
    "/v1/completions": openai_completions.UNDONE,
    "/v1/responses": openai_responses.UNDONE,
    "/v1/messages": anthropic_messages.UNDONE,
}
FIELDS: Final = {
    entry.path: {*entry.body.__struct_encode_fields__, *UNDONE.get(entry.path, ())} for entry in ENTRIES if entry.body
}
"""The fields that a route knows."""
PICTURE: Final[dict[str, Any]] = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"},
}
NAMED: Final = {"type": "function", "function": {"name": "g"}}


def _said(*parts: object, role: str = "user") -> dict[str, Any]:
    """A conversation of one message."""
    return {"messages": [{"role": role, "content": list(parts)}]}


def _given(*parts: object, role: str = "user") -> dict[str, Any]:
    """The same, as `/v1/responses` has it."""
    return {"input": [{"role": role, "content": list(parts)}]}


EXTRA: Final[tuple[dict[str, Any], ...]] = (
    {"priority": -1}, {"priority": -1}, {"n": 64},
    {"best_of": 2}, {"functions": [{}]}, {"background": True}, {"container": "x"}, {"suffix": "x"},
    {"model": "gpt-4"}, {"tokens": [-1]}, {"cache_salt": ""}, {"stop_token_ids": [2**40]}, {"seed": 2**64},
    {"temperature": 1e-5}, {"stop": [""]}, {"logit_bias": {"999999": 1}}, {"logit_bias": {"x": 1}},
    {"max_tokens": 10**6}, {"top_p": 0},
    {"top_logprobs": 2, "include": None}, {"top_logprobs": 2, "logprobs": False}, {"echo": True, "logprobs": 3},
    {"include": ["file_search_call.results"]}, {"thinking_budget": 3}, {"thinking": {"type": "enabled"}},
    {"prompt": ""}, {"prompt": [1, "x"]}, {"prompt": [[1], [2]]}, {"prompt": ["x"] * 65}, {"prompt": [2**31]},
    {"prompt": [2**70]}, {"prompt": PROSE[0] * 400}, {"prompt": ["x"] * 40, "n": 2}, {"prompt": None},
    {"tools": []}, {"tools": [{"type": "web_search"}]}, {"tools": [{"type": "function"}]},
    {"tools": [{"type": "function"}], "include": []}, {"tools": [{"name": "f"}]},
    {"tools": [{"type": "x", "name": "f"}]}, {"tool_choice": "required"}, {"tool_choice": {"type": "any"}},
    {"tool_choice": NAMED}, {"tool_choice": {"type": "function", "name": "g"}}, {"tool_choice": "sometimes"},
    {"tool_choice": {"type": "tool", "name": "g"}}, {"messages": []}, _said({"type": "text", "text": PROSE[0] * 200}),
    _said(PICTURE), _said(PICTURE, role="system"), _said(PICTURE, role="assistant"), _said(PICTURE, role="tool"),
    _said({"type": "image_url"}), _said({"type": "audio"}),
    _said({"type": "image", "source": {"type": "url"}}), _said({"type": "tool_result"}), _said({"type": "text"}),
    _said({"type": "tool_use"}, role="assistant"), _said({"type": "text", "text": "x"}, role="assistant"),
    {"response_format": {"type": "json_schema"}}, {"text": {"format": {"type": "json_schema"}}},
    {"structured_outputs": {"json_object": True, "regex": "a"}}, {"input": []}, {"input": [{"type": "item_reference"}]},
    {"input": [{"type": "message", "content": "x"}]}, {"input": [{"role": "user"}]}, {"input": PROSE[0] * 300},
    _given({"type": "input_image", "file_id": "x"}), _given({"type": "input_image", "image_url": "x"}, role="system"),
    _given({"type": "input_image", "image_url": PICTURE["image_url"]["url"]}), _given({"type": "input_text"}),
    _given({"type": "input_file"}),
)  # fmt: skip
"""Fields that ask for what cannot be, each in a way of its own."""


TALK: Final = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
TOOLS: Final = ("tools", "tool_choice", "thinking", "thinking_budget", "reasoning", "reasoning_effort")
PLAIN: Final = {
    path: {name: TALK.get(name, inner) for name, inner in body.items() if name not in TOOLS}
    for path, body in RIGHT.items()
}
"""The same for a model that neither calls tools nor thinks."""
NEEDED: Final = ("messages", "prompt", "input", "max_tokens", "tokens")
"""Fields without which there is no request."""


def start(folder: Path) -> Attempt:
    server = Server("demo", write_chat_checkpoint(folder / "thinking", THINKING))
    document = describe(ENTRIES)

    def schema(path: str) -> dict[str, Any]:
        found: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return found

    def attempt(rng: Random) -> None:
        path, field = rng.choice(PATHS), ""
        which = rng.choice((1, 2, 2)) if rng.random() > 0.02 else 0
        app = server.apps[which]
        if rng.random() < 0.05:
            method, data = rng.choice(("GET", "POST", "PUT", "HEAD")), rng.choice((b"", b"{}", b"x" * 20_000))
            path += rng.choice(("", "", rng.choice(TEXTS).encode("utf-8", "replace").decode()))
        elif rng.random() < 0.25:
            path = rng.choice(list(RIGHT))
            method, data = "POST", Bodies(document, rng).body(schema(path))
        else:
            method = "POST"
            path, field, data = almost(rng, RIGHT if which == 2 else PLAIN)
        app.state.service.held = others = rng.choice((0, 0, 0, 0, 0, 0, 0, 14_990))
        try:
            given = headers(rng)
            reply = server.run(ask(app, method, path, data, given))
        finally:
            app.state.service.held -= others
        judge(method, path, field if len(given) == 1 else "", reply)
        server.check()
        if reply.status >= 400:
            server.refuse(rng)

    return attempt


def almost(rng: Random, right: Mapping[str, dict[str, Any]]) -> tuple[str, str, bytes]:
    """A route, a body for it that is right but for something, and the field that is wrong where it is one alone."""
    path, field = rng.choice(list(right)), ""
    tree = {name: inner for name, inner in right[path].items() if rng.random() < 0.6 or name in NEEDED}
    for name, needed in (("tool_choice", "tools"), ("top_logprobs", "logprobs"), ("top_logprobs", "include")):
        if needed in right[path] and needed not in tree:
            tree.pop(name, None)
    match rng.randrange(12):
        case 0 | 1 | 2 | 3 | 4 | 5 | 6:
            extra = rng.choice(EXTRA)
            path = rng.choice([path for path in right if extra.keys() <= FIELDS[path]])
            bare = rng.random() < 0.7
            tree = {each: right[path][each] for each in right[path] if not bare or each in NEEDED} | extra
            data = dumped(changed(rng, tree) if rng.random() < 0.2 else tree).encode(errors="surrogatepass")
        case 7 | 8:
            field = rng.choice(list(tree))
            wrong = changed(rng, {field: tree[field]})
            field = field if isinstance(wrong, dict) and wrong.keys() == {field} else ""
            data = dumped({**tree, **wrong} if field else wrong).encode(errors="surrogatepass")
        case 9:
            data = damaged(rng, dumped(tree).encode())
        case 10:
            size = rng.choice((60, 70, 300, 1300, 4100))
            data = rng.choice((
                b"[" * size, b'{"a":' * size, b'{"a": ' + b"[" * size + b"]" * size + b"}",
                b" " * size * 12, b"9" * size,
                b'["\\ud800"]' * 9, b"\xff\xfe{", b"[NaN]", b'{"messages": 1, "messages": 2}', b"[1e999]",
            ))  # fmt: skip
        case _:
            data = json_bytes(rng, changed(rng, tree, rng.choice((1, 1, 2, 3))))
    return path, field, data


def headers(rng: Random) -> dict[str, str]:
    given = {"authorization": f"Bearer {KEY}"}
    match rng.randrange(40):
        case 0:
            given["content-type"] = rng.choice(("text/plain", "", "application/json; charset=utf-8", "\xff"))
        case 1:
            given["content-encoding"] = "gzip"
        case 2:
            given["authorization"] = rng.choice(("", "Bearer", "Bearer x", "Basic x", "bearer  sk-right", "\xff"))
        case 3:
            given |= {"x-api-key": rng.choice((KEY, "x", "\xff"))}
            del given["authorization"]
        case 4:
            given["content-length"] = rng.choice(("0", "5", "9" * 18, "9" * 30, "50000000"))
        case 5:
            given |= {"content-length": "2", "transfer-encoding": "chunked"}
        case 6:
            given["x-filler"] = "x" * 3000
        case 7:
            given["x-request-id"] = rng.choice(("a" * 129, "ok", "a\tb", "\xff"))
        case 8:
            given |= {"host": rng.choice(("", "x/../y", "[::")), "origin": "null", "if-none-match": "W/\xff,,"}
    return given


def judge(method: str, path: str, field: str, reply: Reply) -> None:
    """What holds for every answer."""
    assert reply.status in ALLOWED, (reply.status, reply.body)
    if reply.status < 400 or method == "HEAD" or path == "/ready":
        return
    error = reply.json["error"]
    assert error["message"] and not LEAK.search(reply.body), reply.body
    assert ("type" in reply.json) == (path in ("/v1/messages", "/v1/messages/count_tokens")), reply.body
    if (
        reply.status == 400
        and field
        and not error["message"].startswith("the body")
        and error.get("code") != "context_length_exceeded"
    ):
        place = error["message"] if "type" in reply.json else error["param"]
        assert place and field in place, (field, reply.body)


TARGET = Target(
    "http_bodies",
    (
        "ernie_rt_serve.body",
        "ernie_rt_serve.gate",
        "ernie_rt_serve.service",
        "ernie_rt_serve.protocols.anthropic_messages",
        "ernie_rt_serve.protocols.openai",
        "ernie_rt_serve.protocols.openai_chat",
        "ernie_rt_serve.protocols.openai_completions",
        "ernie_rt_serve.protocols.openai_responses",
        "ernie_rt_serve.protocols.tokens",
        "ernie_rt_serve.protocols.tools",
    ),
    start,
    share=2500,
    excused={
        "body_timeout": "nobody waits for a slow body here",
        "ClientGone": "nobody leaves here",
        "given[most].fault": "its models see nothing",
    },
)
