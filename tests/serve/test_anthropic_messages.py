"""`/v1/messages`: what bodies ask for, and its answers by the client that Anthropic publishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings

from ernie_rt_serve.answers import Usage
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols.anthropic_messages import CountBody, MessagesBody, task
from ernie_rt_serve.protocols.anthropic_messages_answer import MessageAnswer, anthropic_error
from ernie_rt_serve.protocols.blocks import Blocks
from ernie_rt_serve.task import Format
from support.answers import CALL, Part, check_events, split, splits, whole
from support.scripted import write_chat_checkpoint
from support.scripted_server import URL, Served, serving, spell
from support.templates import PLAIN, THINKING

SCHEMA = {"type": "object"}
TOOL = {"name": "look_up", "description": "Looks it up", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}
USER = {"role": "user", "content": "Hi"}
USAGE = Usage(7, 3, 20, 5)


def read(*messages: dict[str, Any], **body: Any) -> MessagesBody:
    return msgspec.convert({"messages": list(messages) or [USER], "max_tokens": 9, **body}, MessagesBody)


def messages(*messages: dict[str, Any], **body: Any) -> list[Any]:
    return list(task(read(*messages, **body)).prompt)


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "cache_control": {"type": "ephemeral"}}


def test_what_a_body_asks_for() -> None:
    asked = task(read(system=[text("Be "), text("brief.")], stop_sequences=["x"], temperature=0.5, top_k=3, top_p=0.9))
    assert asked.prompt == ({"role": "system", "content": "Be brief."}, USER)
    assert asked.options == {"stop": ["x"], "temperature": 0.5, "top_k": 3, "top_p": 0.9} and asked.up_to == 9
    assert (asked.tools, asked.tool_choice, asked.format, asked.n) == ((), "auto", None, 1)


def test_blocks_of_a_conversation() -> None:
    assistant = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("I look."),
        {"type": "tool_use", "id": "a", "name": "look_up", "input": {"n": 1}},
        {"type": "tool_use", "id": "b", "name": "look_up", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [text("one")]},
        {"type": "tool_result", "tool_use_id": "b", "content": "gone", "is_error": True},
        {"type": "tool_result", "tool_use_id": "c"},
        text("And "),
        text("now?"),
    ]
    calls = [
        {"id": id, "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        for id, arguments in (("a", {"n": 1}), ("b", {}))
    ]
    talk = (USER, {"role": "assistant", "content": assistant}, {"role": "user", "content": results})
    assert messages(*talk, {"role": "system", "content": "Brief!"}) == [
        USER,
        {"role": "assistant", "content": "I look.", "reasoning": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: gone"},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": "And now?"},
        {"role": "system", "content": "Brief!"},
    ]


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        (None, "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", True),
        ({"type": "tool", "name": "look_up"}, ("look_up",), True),
        ({"type": "none"}, "none", True),
    ],
)
def test_which_tools_are_used(choice: object, expected: object, parallel: bool) -> None:
    asked = task(read(tools=[TOOL], tool_choice=choice))
    function = {"name": "look_up", "description": "Looks it up", "parameters": SCHEMA}
    assert asked.tools == ({"type": "function", "function": function},)
    assert (asked.tool_choice, asked.parallel_tool_calls) == (expected, parallel)


@pytest.mark.parametrize(
    ("body", "budget", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "low"}}, 1024, None),
        ({"thinking": {"type": "disabled"}}, None, 0),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, None, 512),
        ({"output_config": {"effort": "max"}}, None, None),
        ({}, None, None),
    ],
)
def test_thinking_budgets(body: dict[str, Any], budget: int | None, effort: int | None) -> None:
    asked = task(read(**body))
    assert (asked.options.get("thinking_budget"), asked.effort) == (budget, effort)


def test_a_format() -> None:
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert task(read(output_config=wanted)).format == Format("json_schema", SCHEMA)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "image"}], "messages[0].content[0].source"),
        ([text("x"), {"type": "tool_use", "id": "a", "name": "b", "input": {}}], "messages[0].content[1].type"),
        ([{"type": "text"}], "messages[0].content[0].text"),
        ([{"type": "tool_result"}], "messages[0].content[0].tool_use_id"),
        ([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}],
         "messages[0].content[0].content[0].type"),
    ],
)  # fmt: skip
def test_blocks_that_are_refused(content: object, param: str) -> None:
    with pytest.raises(Fault) as error:
        task(read({"role": "user", "content": content}))
    assert (error.value.status, error.value.param) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"tools": [{"name": "look_up"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "else"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"messages": [USER, {"role": "assistant", "content": "The"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "x"}]}, USER]},
         "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_what_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(Fault) as error:
        task(read(**body))
    assert (error.value.status, error.value.param) == (400, param)


def test_what_is_counted_needs_no_limit() -> None:
    assert task(msgspec.convert({"messages": [USER]}, CountBody)).up_to is None


def answer(max_tokens: int = 20) -> MessageAnswer:
    return MessageAnswer("m", max_tokens, Blocks(parallel_tool_calls=True), lambda: USAGE)


@settings(deadline=None, max_examples=50)
@given(splits())
def test_however_an_answer_is_split_its_events_join_to_one_body(given: tuple[list[Part], list[int], str]) -> None:
    parts, cuts, finish = given
    one, other = answer(), answer()
    for piece in whole(parts, finish):
        list(one.push(piece))
    events = [*other.begin(), *(event for piece in split(parts, cuts, finish) for event in other.push(piece))]
    events += other.end()
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    del events[1]  # the client looks over it
    check_events(events, RawMessageStreamEvent)
    assert plain(other.body()) == plain(one.body())

    joined: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        wire = json.loads(msgspec.json.encode(event))
        joined = accumulate_event(event=wire, current_snapshot=joined, json_bufs=buffers)
    expected = Message.model_validate(json.loads(msgspec.json.encode(other.body())))
    assert Message.model_validate(joined.model_dump(warnings=False)) == expected
    assert expected.usage.input_tokens == 4 and expected.usage.cache_read_input_tokens == 3


def plain(body: dict[str, Any]) -> Any:
    """The body without the ids in which two of the same answer differ."""
    return json.loads(msgspec.json.encode(body).decode().replace(body["id"].removeprefix("msg_"), "ID"))


def test_one_use_of_a_tool_where_no_more_are_wanted() -> None:
    alone = MessageAnswer("m", 20, Blocks(parallel_tool_calls=False), lambda: USAGE)
    for piece in whole([("call", "a"), ("call", "b"), ("text", "x")], "stop"):
        list(alone.push(piece))
    assert [block["type"] for block in alone.body()["content"]] == ["tool_use", "text"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"), (429, "overloaded_error"),
     (415, "invalid_request_error"), (500, "api_error"), (503, "overloaded_error")],
)  # fmt: skip
def test_errors_in_its_shape(status: int, kind: str) -> None:
    fault = Fault(status, "No")
    assert anthropic_error(fault) == {"type": "error", "error": {"type": kind, "message": "No"}}
    assert list(answer().fail(fault)) == [anthropic_error(fault)]


# By the client.

Talk = Callable[[anthropic.AsyncAnthropic, Served], Awaitable[None]]
ASKED: dict[str, Any] = {"model": "scripted", "max_tokens": 400, "messages": [USER]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("thinking"), THINKING)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("plain"), PLAIN)


def talk(folder: Path, conversation: Talk, *answers: list[int], **options: Any) -> None:
    async def run() -> None:
        async with serving(folder, *answers, **options) as served:
            client = anthropic.AsyncAnthropic(api_key="k", base_url=URL, http_client=served.http, max_retries=0)
            await conversation(client, served)

    asyncio.run(run())


def test_a_loop_of_tools(folder: Path) -> None:
    async def conversation(client: anthropic.AsyncAnthropic, served: Served) -> None:
        asked: dict[str, Any] = {"tools": [TOOL], "system": [text("Be brief.")], "model": "scripted"}
        said: list[Any] = [{"role": "user", "content": "What is a 猫?"}]
        counted = await client.messages.count_tokens(messages=said, **asked)
        first = await client.messages.create(messages=said, max_tokens=400, **asked)
        assert first.stop_reason == "tool_use" and first.usage.input_tokens == counted.input_tokens
        thought, use = first.content
        assert thought.type == "thinking" and thought.thinking == "I look it up." and thought.signature
        assert use.type == "tool_use" and (use.name, use.input) == ("look_up", {"what": "猫"})
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "a cat"}
        said += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = await client.messages.create(messages=said, max_tokens=400, **asked)
        assert second.stop_reason == "end_turn" and second.usage.cache_read_input_tokens
        assert [block.text for block in second.content if block.type == "text"] == ["A cat."]
        assert f"<think>\nI look it up.\n</think>\n\n{CALL}\n<|im_end|>" in served.prompts[1]
        assert '<tool_output>"a cat"</tool_output>' in served.prompts[1]

    answers = (f"I look it up.\n</think>\n\n{CALL}", "x\n</think>\n\n<response>\nA cat.\n</response>\n")
    talk(folder, conversation, *(spell(folder, text, "<|im_end|>") for text in answers))


def test_a_stream(folder: Path) -> None:
    async def conversation(client: anthropic.AsyncAnthropic, served: Served) -> None:
        async with client.messages.stream(**ASKED, tools=[TOOL]) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_message()
        assert events[0].type == "message_start" and events[-1].type == "message_stop"
        assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
        assert "".join(event.thinking for event in events if event.type == "thinking") == "Let me see."
        assert "".join(event.text for event in events if event.type == "text") == "Wait."
        assert sum(event.type == "thinking" for event in events) > 1

    said = f"Let me see.\n</think>\n\n<response>\nWait.\n</response>\n{CALL}"
    talk(folder, conversation, spell(folder, said, "<|im_end|>"))


def test_why_an_answer_ends(plain_folder: Path) -> None:
    async def conversation(client: anthropic.AsyncAnthropic, served: Served) -> None:
        async def ended(**body: Any) -> tuple[str | None, str | None, str]:
            message = await client.messages.create(**ASKED | body)
            return message.stop_reason, message.stop_sequence, "".join(block.text for block in message.content)  # type: ignore[union-attr]

        assert await ended(thinking={"type": "disabled"}) == ("end_turn", None, "One two three four")
        assert await ended(stop_sequences=["never", " three"]) == ("stop_sequence", " three", "One two")
        assert (await ended(max_tokens=2))[:2] == ("max_tokens", None)
        # There is less room in the context than is asked for.
        assert (await ended(max_tokens=5000))[:2] == ("model_context_window_exceeded", None)

    said = spell(plain_folder, "One two three four", "</s>")
    talk(plain_folder, conversation, said, said, said, [said[0]] * 600)


def test_errors(plain_folder: Path) -> None:
    async def conversation(client: anthropic.AsyncAnthropic, served: Served) -> None:
        with pytest.raises(anthropic.BadRequestError, match="image") as refused:
            image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}
            await client.messages.create(**ASKED | {"messages": [{"role": "user", "content": [image]}]})
        assert refused.value.type == "invalid_request_error"
        with pytest.raises(anthropic.BadRequestError, match="no tools"):
            await client.messages.create(**ASKED, tools=[TOOL])
        with pytest.raises(anthropic.BadRequestError, match="container"):
            await client.messages.create(**ASKED, container="c")
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**ASKED | {"model": "another"})
        await served.async_model.drain()
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await client.messages.create(**ASKED)
        assert (overloaded.value.status_code, overloaded.value.type) == (503, "overloaded_error")

    talk(plain_folder, conversation)


def test_a_stream_that_fails(plain_folder: Path) -> None:
    async def conversation(client: anthropic.AsyncAnthropic, served: Served) -> None:
        types: set[str] = set()
        with pytest.raises(anthropic.APIStatusError) as failed:
            async for event in await client.messages.create(**ASKED, stream=True):
                types.add(event.type)
        assert "content_block_delta" in types and "message_stop" not in types
        assert failed.value.type == "api_error"

    talk(plain_folder, conversation, spell(plain_folder, "One two three"))  # without an end
