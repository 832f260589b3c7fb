"""`/v1/responses`: what bodies ask for, and its answers by the client that OpenAI publishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given, settings
from openai.types.responses import Response

from ernie_rt_serve.answers import Usage
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols.blocks import Blocks
from ernie_rt_serve.protocols.openai_responses import ResponsesBody, _head, task
from ernie_rt_serve.protocols.openai_responses_answer import ResponseAnswer
from ernie_rt_serve.task import Format
from support.answers import CALL, Part, check_events, split, splits, whole
from support.scripted import write_chat_checkpoint
from support.scripted_server import URL, Served, serving, spell
from support.templates import PLAIN, THINKING

TOOL = {"type": "function", "name": "look_up", "description": "Looks it up", "parameters": {"type": "object"}}
PLAIN_TOOL = {"type": "function", "function": {key: TOOL[key] for key in ("name", "description", "parameters")}}
USAGE = Usage(7, 3, 20, 5)


def read(**body: Any) -> ResponsesBody:
    return msgspec.convert({"input": "Hi", **body}, ResponsesBody)


def messages(*items: dict[str, Any], **body: Any) -> list[Any]:
    return list(task(read(input=list(items), **body)).prompt)


def test_a_text_with_instructions() -> None:
    asked = task(read(instructions="Be brief.", max_output_tokens=5, temperature=0.5, top_p=0.9))
    assert asked.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    assert asked.options == {"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9}
    assert (asked.tools, asked.tool_choice, asked.format, asked.n) == ((), "auto", None, 1)


def test_what_an_assistant_did_in_one_turn_is_one_message() -> None:
    turn = [
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look."}, {"type": "refusal", "refusal": "No."}],
        },
        {"type": "function_call", "call_id": "a", "name": "look_up", "arguments": '{"n": 1}'},
        {"type": "function_call", "call_id": "b", "name": "look_up", "arguments": "{}"},
    ]
    results = [
        {"type": "function_call_output", "call_id": "a", "output": "one"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "two"}]},
    ]
    user = {"role": "user", "content": [{"type": "input_text", "text": "H"}, {"type": "input_text", "text": "i"}]}
    calls = [
        {"id": id, "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        for id, arguments in (("a", '{"n": 1}'), ("b", "{}"))
    ]
    assert messages({"role": "developer", "content": "Be brief."}, user, *turn, *results) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "reasoning": "Hm.", "content": "I look.No.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
    ]
    # What comes too late for a turn begins another.
    assert [message["content"] for message in messages(turn[1], turn[1], turn[0], turn[2], turn[1])] == [
        "I look.No.", "I look.No.", "", "I look.No.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"text": {"format": {"type": "text"}}}, None),
        ({"text": {"format": {"type": "json_object"}}}, Format("json")),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}}},
            Format("json_schema", {"type": "object"}),
        ),
    ],
)
def test_formats(body: dict[str, Any], expected: Format | None) -> None:
    assert task(read(**body)).format == expected


@pytest.mark.parametrize(
    ("reasoning", "budget", "effort"),
    [
        ({"effort": "none"}, None, 0),
        ({"effort": "low", "summary": "auto"}, None, 512),
        ({"effort": "xhigh"}, None, None),
        ({"effort": "low", "max_tokens": 7}, 7, None),
        (None, None, None),
    ],
)
def test_thinking_budgets(reasoning: dict[str, Any] | None, budget: int | None, effort: int | None) -> None:
    asked = task(read(reasoning=reasoning))
    assert (asked.options.get("thinking_budget"), asked.effort) == (budget, effort)


def test_tools_and_which_are_called() -> None:
    other = {**TOOL, "name": "other"}

    def chosen(choice: object) -> tuple[int, object]:
        asked = task(read(tools=[TOOL, other], tool_choice=choice))
        assert asked.tools[0] == PLAIN_TOOL
        return len(asked.tools), asked.tool_choice

    assert [chosen(choice) for choice in (None, "auto", "none", "required")] == [
        (2, "auto"), (2, "auto"), (2, "none"), (2, "required"),
    ]  # fmt: skip
    assert chosen({"type": "function", "name": "other"}) == (2, ("other",))
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look_up"}]}
    assert chosen(allowed) == (1, "required")
    assert not task(read(parallel_tool_calls=False)).parallel_tool_calls


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "else"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ],
)
def test_what_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(Fault) as error:
        task(read(**body))
    assert (error.value.status, error.value.param) == (400, param)


def answer() -> ResponseAnswer:
    body = read(tools=[TOOL], text={"format": {"type": "json_schema", "name": "x", "schema": {"minimum": 10**30}}})
    return ResponseAnswer(_head(body, "m"), Blocks(parallel_tool_calls=True), lambda: USAGE, lambda pieces: [])


@settings(deadline=None, max_examples=50)
@given(splits())
def test_however_an_answer_is_split_its_events_join_to_one_body(given: tuple[list[Part], list[int], str]) -> None:
    parts, cuts, finish = given
    one, other = answer(), answer()
    for piece in whole(parts, finish):
        list(one.push(piece))
    events = [*other.begin(), *(event for piece in split(parts, cuts, finish) for event in other.push(piece))]
    events += other.end()
    check_events(events, openai.types.responses.response_stream_event.ResponseStreamEvent)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))

    last = events[-1]
    assert last["type"] == f"response.{'completed' if finish == 'stop' else 'incomplete'}"
    assert plain(last["response"]) == plain(one.body()) == plain(other.body())
    Response.model_validate(json.loads(msgspec.json.encode(last["response"])))
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == last["response"]["output"]
    for index, item in enumerate(items):
        deltas = "".join(event["delta"] for event in events if "delta" in event and event["output_index"] == index)
        assert deltas == (item["arguments"] if "arguments" in item else item["content"][0]["text"])


def plain(body: dict[str, Any]) -> Any:
    """The body without what two of the same answer differ in."""
    text = msgspec.json.encode(body | {"created_at": 0}).decode()
    return json.loads(text.replace(body["id"].removeprefix("resp_"), "ID"))


def test_an_answer_that_fails_keeps_what_there_is() -> None:
    failing = answer()
    for piece in whole([("reasoning", "Hm."), ("text", "Half an")], None):
        list(failing.push(piece))
    (event,) = failing.fail(Fault(500, "It failed"))
    check_events([event], openai.types.responses.response_stream_event.ResponseStreamEvent)
    response = event["response"]
    assert (event["type"], response["error"]) == ("response.failed", {"code": "server_error", "message": "It failed"})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


# By the client.

Talk = Callable[[openai.AsyncOpenAI, Served], Awaitable[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("thinking"), THINKING)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("plain"), PLAIN)


def talk(folder: Path, conversation: Talk, *answers: list[int]) -> None:
    async def run() -> None:
        async with serving(folder, *answers) as served:
            client = openai.AsyncOpenAI(api_key="k", base_url=f"{URL}/v1", http_client=served.http, max_retries=0)
            await conversation(client, served)

    asyncio.run(run())


def test_a_loop_of_tools(folder: Path) -> None:
    async def conversation(client: openai.AsyncOpenAI, served: Served) -> None:
        said: list[Any] = [{"role": "user", "content": "What is a 猫?"}]
        first = await client.responses.create(model="scripted", input=said, tools=[TOOL])
        reasoning, call = first.output
        assert reasoning.type == "reasoning" and reasoning.content and reasoning.content[0].text == "I look it up."
        assert call.type == "function_call" and (call.name, call.arguments) == ("look_up", '{"what": "猫"}')
        assert first.usage and first.usage.output_tokens_details.reasoning_tokens > 3
        said += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "a cat"}]
        second = await client.responses.create(model="scripted", input=said, tools=[TOOL], store=True)
        assert (second.output_text, second.status, second.previous_response_id) == ("A cat.", "completed", None)
        assert second.usage and second.usage.input_tokens_details.cached_tokens > 0
        assert f"<think>\nI look it up.\n</think>\n\n{CALL}\n<|im_end|>" in served.prompts[1]
        assert '<tool_output>"a cat"</tool_output>' in served.prompts[1]

    answers = (f"I look it up.\n</think>\n\n{CALL}", "x\n</think>\n\n<response>\nA cat.\n</response>\n")
    talk(folder, conversation, *(spell(folder, text, "<|im_end|>") for text in answers))


def test_a_stream(folder: Path) -> None:
    async def conversation(client: openai.AsyncOpenAI, served: Served) -> None:
        async with client.responses.stream(model="scripted", input="Hi", tools=[TOOL]) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        assert [event.type for event in events][:4] == [
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        ]  # fmt: skip
        assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Wait."
        assert sum(event.type == "response.reasoning_text.delta" for event in events) > 1

    text = f"Let me see.\n</think>\n\n<response>\nWait.\n</response>\n{CALL}"
    talk(folder, conversation, spell(folder, text, "<|im_end|>"))


def test_log_probabilities_and_the_end_of_room(plain_folder: Path) -> None:
    async def conversation(client: openai.AsyncOpenAI, served: Served) -> None:
        asked: dict[str, Any] = {
            "model": "scripted", "input": "Hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"],
        }  # fmt: skip
        whole = await client.responses.create(**asked, max_output_tokens=3, reasoning={"effort": "low"})
        assert whole.status == "incomplete" and whole.incomplete_details
        assert whole.incomplete_details.reason == "max_output_tokens"
        (message,) = whole.output
        assert message.type == "message" and message.status == "incomplete"
        told = message.content[0].logprobs  # type: ignore[union-attr]
        assert told and len(told) == 3 and all(len(one.top_logprobs) == 2 for one in told)
        assert b"".join(bytes(one.bytes) for one in told).decode().strip() == whole.output_text
        events = [event async for event in await client.responses.create(**asked, stream=True)]
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert sum(len(event.logprobs) for event in deltas) > 3

    said = spell(plain_folder, "One two three four five six", "</s>")
    talk(plain_folder, conversation, said, said)


def test_errors(plain_folder: Path) -> None:
    async def conversation(client: openai.AsyncOpenAI, served: Served) -> None:
        for field in ({"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "c"}):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model="scripted", input="Hi", **field)
            assert refused.value.param == next(iter(field))
        assert "whole conversation" in refused.value.message
        with pytest.raises(openai.BadRequestError, match="no tools"):
            await client.responses.create(model="scripted", input="Hi", tools=[TOOL])
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="another", input="Hi")
        raw = await served.http.post("/v1/responses", json={"input": "Hi", "unheard_of": 1, "user": "u"})
        assert raw.status_code == 200 and raw.headers["x-ernie-rt-ignored"] == "unheard_of"

    talk(plain_folder, conversation, spell(plain_folder, "Hi", "</s>"))


def test_a_stream_that_fails(plain_folder: Path) -> None:
    async def conversation(client: openai.AsyncOpenAI, served: Served) -> None:
        events = [event async for event in await client.responses.create(model="scripted", input="Hi", stream=True)]
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        last = events[-1]
        assert last.type == "response.failed" and last.response.error and last.response.error.code == "server_error"

    talk(plain_folder, conversation, spell(plain_folder, "One two three"))  # without an end
