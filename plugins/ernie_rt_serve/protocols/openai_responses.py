"""OpenAI's `/v1/responses`. Nothing is kept of a response, so each request brings its whole conversation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, cast

from msgspec import Meta, Struct, to_builtins
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt import Piece
from ernie_rt.generation.options import GenerateOptions
from ernie_rt_serve import attachments, body, routing
from ernie_rt_serve.access import caller
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols import openai, tools, typed_events
from ernie_rt_serve.protocols.blocks import Blocks
from ernie_rt_serve.protocols.openai_responses_answer import ResponseAnswer
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Format, Task

KEPT: Final = "No response is kept here: send the whole conversation as `input`"
SENT: Final = "no file is kept here: send it as a data URI in image_url"
UNDONE: Final[Mapping[str, str]] = {
    "access_programs": "Leave it out",
    "background": "Use `stream`, or wait",
    "background_options": "Leave it out",
    "context_management": "Leave it out",
    "conversation": KEPT,
    "image": "Leave it out",
    "moderation": "Leave it out",
    "previous_response_id": KEPT,
    "prompt": "Send what the prompt says as `instructions` and `input`",
}
"""Fields that are not done here, and what to do instead."""
TEXTS: Final = ("input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text")
"""The types of parts that are text."""
INCLUDABLE: Final = ("message.output_text.logprobs", "reasoning.encrypted_content")
"""What `include` may hold. Reasoning comes as text, so there is never an encrypted form of it."""


class Tool(Struct, kw_only=True):
    type: str
    name: tools.Name | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(Struct, kw_only=True, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextSettings(Struct, kw_only=True):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Struct, kw_only=True):
    """How much a model may reason: by a word, or, as other servers have it, in tokens."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Part(Struct, kw_only=True):
    """A part of a message, of a tool's output or of reasoning."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_id: str | None = None
    detail: attachments.Detail | None = None


class Item(Struct, kw_only=True):
    """An item of the input, of any type: which fields it must have follows from that."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] = []


class ResponsesBody(Struct, kw_only=True):
    input: str | list[Item]
    model: str | None = None
    instructions: str | None = None
    tools: Annotated[list[Tool], Meta(max_length=tools.MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: openai.Positive | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: openai.TopLogprobs | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    truncation: Literal["disabled"] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    reuse_after_change: bool | None = None

    @property
    def logprobs(self) -> bool:
        """Whether the log probabilities of the text are wanted."""
        return INCLUDABLE[0] in (self.include or ())

    @property
    def parallel(self) -> bool:
        """Whether an answer may hold several calls of tools."""
        return self.parallel_tool_calls is not False


def task(request: ResponsesBody) -> Task:
    """What a request asks for; Fault where it asks for nothing that can be done."""
    for entry in request.include or ():
        if entry not in INCLUDABLE:
            raise Fault(400, f"include holds {entry!a:.80}; it can hold {' and '.join(INCLUDABLE)}", "include")
    given, choice = _tools(request)
    reasoning = request.reasoning or Reasoning()
    return Task(
        tuple(_messages(request)),
        given,
        choice,
        request.parallel,
        _format(None if request.text is None else request.text.format),
        _options(request),
        effort=None if reasoning.max_tokens is not None else openai.EFFORTS.get(reasoning.effort or ""),
        thinking=openai.thinking(reasoning.effort, reasoning.max_tokens),
    )


def _options(request: ResponsesBody) -> GenerateOptions:
    options: dict[str, Any] = {
        "max_new_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
        "thinking_budget": None if request.reasoning is None else request.reasoning.max_tokens,
        "reuse_after_change": request.reuse_after_change,
    }
    return cast(GenerateOptions, {name: value for name, value in options.items() if value is not None})


def _format(wanted: TextFormat | None) -> Format | None:
    match wanted:
        case TextFormat(type="json_object"):
            return Format("json")
        case TextFormat(type="json_schema"):
            if wanted.schema is None:
                raise Fault(400, "text.format has no schema", "text.format.schema")
            return Format("json_schema", wanted.schema)
    return None


def _tools(request: ResponsesBody) -> tuple[tuple[Mapping[str, Any], ...], tools.Choice]:
    """The tools that may be called, and whether one must be."""
    given: dict[str, Mapping[str, Any]] = {}
    for number, tool in enumerate(request.tools or ()):
        where = f"tools[{number}]"
        if tool.type != "function":
            raise Fault(400, f"{where}: tools of type {tool.type!a:.80} are not done here; give functions", where)
        if tool.name is None:
            raise Fault(400, f"{where}: a function without a name", f"{where}.name")
        given[tool.name] = tools.function(tool.name, tool.description, tool.parameters)
    choice: tools.Choice = "auto"
    match request.tool_choice:
        case None:
            pass
        case "auto" | "none" | "required" as choice:
            pass
        case {"type": "function", "name": str(name)}:
            choice = (name,)
        case {"type": "allowed_tools", "mode": "auto" | "required" as choice, "tools": list(allowed)}:
            names = [one.get("name") for one in allowed if isinstance(one, dict)]
            given = {name: tool for name, tool in given.items() if name in names}
        case other:
            raise Fault(400, f"tool_choice is {other!a:.80}, which is not done here", "tool_choice")
    return tuple(given.values()), tools.chosen(choice, given)


def _messages(request: ResponsesBody) -> Iterable[Mapping[str, Any]]:
    """The conversation as OpenAI's chat has it: what an assistant did in one turn is one message."""
    if request.instructions:
        yield {"role": "system", "content": request.instructions}
    if isinstance(request.input, str):
        yield {"role": "user", "content": request.input}
        return
    turn: dict[str, Any] = {}
    for number, item in enumerate(request.input):
        key, value = _item(item, f"input[{number}]")
        if key in STAGES:
            if any(stage in turn for stage in STAGES[STAGES.index(key) + (key == "tool_calls") :]):
                yield {"role": "assistant", "content": "", **turn}
                turn = {}
            turn[key] = [*turn.get(key, ()), value] if key == "tool_calls" else value
            continue
        if turn:
            yield {"role": "assistant", "content": "", **turn}
            turn = {}
        yield value
    if turn:
        yield {"role": "assistant", "content": "", **turn}


STAGES: Final = ("reasoning", "content", "tool_calls")
"""What an assistant's turn consists of, in its order: an item that comes too late for one begins another."""


def _item(item: Item, where: str) -> tuple[str, Any]:
    """What an item adds to an assistant's turn, under its key there, or a message of somebody else, under ""."""
    match item.type:
        case "message":
            if item.role is None:
                raise Fault(400, f"{where}: a message without a role", f"{where}.role")
            if item.role == "user" and isinstance(item.content, list):
                return "", {"role": "user", "content": _content(item.content, f"{where}.content")}
            text = _text(item.content, f"{where}.content")
            if item.role == "assistant":
                return "content", text
            return "", {"role": "system" if item.role == "developer" else item.role, "content": text}
        case "reasoning":
            parts = item.summary if item.content is None else item.content
            return "reasoning", _text(parts, f"{where}.content")
        case "function_call":
            call = {"name": item.name, "arguments": item.arguments}
            return "tool_calls", {"id": item.call_id, "type": "function", "function": call}
        case "function_call_output":
            return "", {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output, f"{where}.output")}
    hint = KEPT if item.type == "item_reference" else "Leave it out"
    raise Fault(400, f"{where}: items of type {item.type!a:.80} are not done here. {hint}", f"{where}.type")


def _content(parts: list[Part], where: str) -> str | list[Any]:
    """What a user says and shows: one text, or where there are pictures, parts of both."""
    if not any(part.type == "input_image" for part in parts):
        return _text(parts, where)
    given: list[Any] = []
    for number, part in enumerate(parts):
        place = f"{where}[{number}]"
        if part.type != "input_image":
            given.append({"type": "text", "text": _part_text(part, place)})
        elif part.image_url is None:
            raise Fault(400, f"{place}: {SENT if part.file_id else 'a picture without an image_url'}", place)
        else:
            given.append(attachments.from_url("image", part.image_url, place, part.detail))
    return given


def _text(content: str | list[Part] | None, where: str) -> str:
    """The text of parts of which each is text."""
    if content is None:
        raise Fault(400, f"{where}: nothing in it", where)
    if isinstance(content, str):
        return content
    return "".join(_part_text(part, f"{where}[{number}]") for number, part in enumerate(content))


def _part_text(part: Part, where: str) -> str:
    if part.type == "input_image":
        raise Fault(400, f"{where}: pictures are for messages of the user", where)
    if part.type not in TEXTS:
        raise Fault(400, f"{where}: parts of type {part.type!a:.80} are not done here, only text and pictures", where)
    if part.text is None and part.refusal is None:
        raise Fault(400, f"{where}: no text in it", f"{where}.text")
    return part.text or part.refusal or ""


def _head(request: ResponsesBody, model: str) -> dict[str, Any]:
    """What a response repeats of its request."""
    wanted = None if request.text is None else request.text.format
    given = [to_builtins(tool) | {"strict": tool.strict is True} for tool in request.tools or ()]
    return {
        "object": "response",
        "created_at": int(time.time()),
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": model,
        "parallel_tool_calls": request.parallel,
        "previous_response_id": None,
        "reasoning": {"effort": None if request.reasoning is None else request.reasoning.effort, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": request.temperature,
        "text": {"format": {"type": "text"} if wanted is None else to_builtins(wanted)},
        "tool_choice": request.tool_choice or "auto",
        "tools": given,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


async def respond(request: Request, service: Service) -> Response:
    """The answer to a conversation."""
    wanted, headers = await body.read(request, ResponsesBody, service, UNDONE)
    service.check_model(wanted.model)
    answers = await service.start(request, task(wanted), who=caller(request))
    tokenizer = service.served.model.tokenizer

    def logprobs(pieces: Iterable[Piece]) -> list[dict[str, Any]]:
        if not wanted.logprobs:
            return []
        return openai.logprobs(tokenizer, ((piece.id, piece.logprobs) for piece in pieces))

    blocks = Blocks(wanted.parallel)
    answer = ResponseAnswer(_head(wanted, service.settings.model), blocks, lambda: answers.usage, logprobs)
    return await typed_events.respond(request, answers, answer, wanted.stream, headers)


ENTRIES: Final = (routing.Entry("POST", "/v1/responses", "key", respond, body=ResponsesBody, queued=True),)
