"""Anthropic's `/v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, cast

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ernie_rt.generation.options import GenerateOptions
from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve import attachments, body, routing
from ernie_rt_serve.access import caller
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.protocols import openai, tools, typed_events
from ernie_rt_serve.protocols.anthropic_messages_answer import MessageAnswer, anthropic_error
from ernie_rt_serve.protocols.blocks import Blocks
from ernie_rt_serve.service import Service
from ernie_rt_serve.task import Format, Task

UNDONE: Final[Mapping[str, str]] = {
    "container": "Nothing is run here",
    "diagnostics": "Leave it out",
    "inference_geo": "Leave it out",
    "mcp_servers": "Call such servers from the client, and give their tools in `tools`",
}
"""Fields that are not done here, and what to do instead."""
ASSISTANT: Final = ("text", "thinking", "redacted_thinking", "tool_use")
USER: Final = ("text", "image", "tool_result")
"""The types of blocks that turns consist of."""


class Source(Struct, kw_only=True):
    """Where a picture is: in `data`, as base64."""

    type: str
    media_type: str = ""
    data: str | None = None


class Block(Struct, kw_only=True):
    """A block of a message, of any type: which fields it must have follows from that."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool = False
    source: Source | None = None


class Message(Struct, kw_only=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Struct, kw_only=True):
    name: tools.Name
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Struct, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct, kw_only=True):
    """How much a model may reason. Its reasoning is always shown."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None
    display: Literal["summarized"] | None = None


class OutputFormat(Struct, kw_only=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, kw_only=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountBody(Struct, kw_only=True):
    """What of a request makes its prompt."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Block] | None = None
    tools: Annotated[list[Tool], Meta(max_length=tools.MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None
    speed: Literal["standard"] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None

    @property
    def parallel(self) -> bool:
        """Whether an answer may hold several uses of tools."""
        return self.tool_choice is None or not self.tool_choice.disable_parallel_tool_use


class MessagesBody(CountBody, kw_only=True):
    max_tokens: openai.Positive
    stop_sequences: Annotated[list[openai.Stop], Meta(max_length=openai.MAX_STOPS)] | None = None
    temperature: float | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    top_p: float | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    reuse_after_change: bool | None = None


def task(request: CountBody) -> Task:
    """What a request asks for; Fault where it asks for nothing that can be done."""
    asked = request if isinstance(request, MessagesBody) else None
    return Task(
        tuple(_messages(request)),
        tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools or ())),
        tools.chosen(_choice(request.tool_choice), [tool.name for tool in request.tools or ()]),
        request.parallel,
        _format(request.output_config),
        GenerateOptions() if asked is None else _options(asked),
        up_to=None if asked is None else asked.max_tokens,
        effort=_effort(request),
        thinking=_thinks(request),
    )


def _options(request: MessagesBody) -> GenerateOptions:
    options = {
        "stop": request.stop_sequences,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "thinking_budget": _thinking_budget(request),
        "reuse_after_change": request.reuse_after_change,
    }
    return cast(GenerateOptions, {name: value for name, value in options.items() if value is not None})


def _thinking_budget(request: MessagesBody) -> int | None:
    thinking = request.thinking
    if thinking is None or thinking.type != "enabled":
        return None
    if thinking.budget_tokens is None:
        raise Fault(400, "thinking is enabled without budget_tokens", "thinking.budget_tokens")
    return thinking.budget_tokens


def _effort(request: CountBody) -> int | None:
    thinking, config = request.thinking, request.output_config
    if thinking is not None and thinking.type in ("enabled", "disabled"):
        return 0 if thinking.type == "disabled" else None
    return None if config is None else openai.EFFORTS.get(config.effort or "")


def _thinks(request: CountBody) -> bool | None:
    thinking, config = request.thinking, request.output_config
    if thinking is not None and thinking.type in ("enabled", "disabled"):
        return thinking.type == "enabled"
    return None if config is None or config.effort is None else True


def _format(config: OutputConfig | None) -> Format | None:
    return None if config is None or config.format is None else Format("json_schema", config.format.schema)


def _tool(tool: Tool, where: str) -> Mapping[str, Any]:
    """A tool as a chat template has it."""
    if tool.type not in (None, "custom"):
        raise Fault(400, f"{where}: tools of type {tool.type!a:.80} are not done here; give custom ones", where)
    if tool.input_schema is None:
        raise Fault(400, f"{where}: a tool without an input_schema", f"{where}.input_schema")
    return tools.function(tool.name, tool.description, tool.input_schema)


def _choice(choice: ToolChoice | None) -> tools.Choice:
    if choice is None:
        return "auto"
    match choice.type:
        case "any":
            return "required"
        case "tool":
            return (choice.name or "",)
        case other:
            return other


def _messages(request: CountBody) -> Iterator[Mapping[str, Any]]:
    """The conversation as OpenAI's chat has it."""
    if request.system:
        yield {"role": "system", "content": _text(request.system, "system")}
    for number, message in enumerate(request.messages):
        where = f"messages[{number}].content"
        if message.role == "assistant":
            yield _assistant(message.content, where)
        elif message.role == "system" or isinstance(message.content, str):
            yield {"role": message.role, "content": _text(message.content, where)}
        else:
            yield from _user(message.content, where)
    if request.messages and request.messages[-1].role == "assistant":
        what = "an answer that the assistant has begun is not continued here: the last message must be another's"
        raise Fault(400, f"messages: {what}", "messages")


def _assistant(content: str | list[Block], where: str) -> Mapping[str, Any]:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    _check(content, ASSISTANT, where)
    calls = [
        {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input or {}}}
        for block in content
        if block.type == "tool_use"
    ]
    thoughts = [block.thinking or "" for block in content if block.type == "thinking"]
    return {
        "role": "assistant",
        "content": "".join(block.text or "" for block in content if block.type == "text"),
        **({"reasoning": "".join(thoughts)} if thoughts else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _user(content: list[Block], where: str) -> Iterator[Mapping[str, Any]]:
    """What a user and its tools said, in messages of each."""
    _check(content, USER, where)
    said: list[Any] = []
    for number, block in enumerate(content):
        place = f"{where}[{number}]"
        if block.type == "text":
            said.append({"type": "text", "text": block.text})
        elif block.type == "image":
            said.append(_image(block.source, place))
        else:
            if said:
                yield {"role": "user", "content": _joined(said)}
                said = []
            result = _text(block.content or "", f"{place}.content")
            failed = "Error: " if block.is_error else ""
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": failed + result}
    if said or not content:
        yield {"role": "user", "content": _joined(said)}


def _image(source: Source | None, where: str) -> attachments.Attachment:
    if source is None or source.type != "base64" or source.data is None:
        what = "nothing is fetched or kept here: an image has a source of type base64, with media_type and data"
        raise Fault(400, f"{where}: {what}", f"{where}.source")
    return attachments.from_base64("image", source.media_type, source.data, where)


def _joined(parts: list[Any]) -> str | list[Any]:
    """One text, or parts where there are pictures as well."""
    if any(isinstance(part, attachments.Attachment) for part in parts):
        return parts
    return "".join(part["text"] for part in parts)


def _text(content: str | list[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    _check(content, ("text",), where)
    return "".join(block.text or "" for block in content)


def _check(content: Iterable[Block], types: tuple[str, ...], where: str) -> None:
    for number, block in enumerate(content):
        place = f"{where}[{number}]"
        if block.type not in types:
            what = f"blocks of type {block.type!a:.80} are not done here, only {', '.join(types)}"
            raise Fault(400, f"{place}: {what}", f"{place}.type")
        if block.type == "text" and block.text is None:
            raise Fault(400, f"{place}: no text in it", f"{place}.text")
        if block.type == "tool_use" and (block.id is None or not block.name or block.input is None):
            raise Fault(400, f"{place}: a use of a tool needs its id, name and input", place)
        if block.type == "tool_result" and block.tool_use_id is None:
            raise Fault(400, f"{place}: a tool's result without a tool_use_id", f"{place}.tool_use_id")


async def create(request: Request, service: Service) -> Response:
    """The answer to a conversation."""
    wanted, headers = await body.read(request, MessagesBody, service, UNDONE)
    service.check_model(wanted.model)
    answers = await service.start(request, task(wanted), who=caller(request))
    blocks = Blocks(wanted.parallel)
    answer = MessageAnswer(service.settings.model, wanted.max_tokens, blocks, lambda: answers.usage)
    return await typed_events.respond(request, answers, answer, wanted.stream, headers)


async def count_tokens(request: Request, service: Service) -> Response:
    """How many tokens a conversation has, as a prompt."""
    wanted, headers = await body.read(request, CountBody, service, UNDONE)
    service.check_model(wanted.model)
    prompt = await service.prompt(request, task(wanted))
    ids = prompt.ids if isinstance(prompt, ChatPrompt) else prompt
    return routing.json({"input_tokens": len(ids)}, headers=headers)


ENTRIES: Final = (
    routing.Entry("POST", "/v1/messages", "key", create, anthropic_error, MessagesBody, queued=True),
    routing.Entry("POST", "/v1/messages/count_tokens", "key", count_tokens, anthropic_error, CountBody),
)
