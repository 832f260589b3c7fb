"""The messages of a conversation, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from ernie_rt.errors import JsonError, PromptError
from ernie_rt.text.media import Media, parse_media
from ernie_rt.untrusted_json import parse_json

ROLES: Final = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `reasoning` and `tool_calls` are an assistant's; `tool_call_id` and `name` a tool's.

    The content is text or, where it has pictures or videos, parts in their order.
    """

    role: str
    content: str | tuple[str | Media, ...] = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def parts(self) -> tuple[str | Media, ...]:
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """What is text of the content."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> tuple[Media, ...]:
        """Its pictures and videos, in their order."""
        return tuple(part for part in self.parts if isinstance(part, Media))


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template renders. `tools` are JSON schemas of functions, as objects.

    `thinking` says whether the answer is to begin with reasoning; None: as the template has it.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    add_generation_prompt: bool = True
    thinking: bool | None = None

    @property
    def media(self) -> tuple[Media, ...]:
        """Its pictures and videos, in their order."""
        return tuple(media for message in self.messages for media in message.media)


def parse_messages(messages: Iterable[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """Check messages, given as Message or as OpenAI-style objects; PromptError names the first that is wrong.

    An object's `content` may be None beside tool calls, or a list of parts: `{"type": "text", "text": …}`,
    `{"type": "image", "image": …}` and `{"type": "video", "video": …}` with the fields of Media. Its reasoning is under
    `reasoning` or `reasoning_content`, and a tool call's `arguments` may be JSON in a string.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
        raise PromptError(
            "not a list of messages",
            expected='[{"role": "user", "content": text}, …]',
            found=type(messages).__name__,
        )
    parsed = tuple(_message(message, f"message {number}") for number, message in enumerate(messages, 1))
    if not parsed:
        raise PromptError("a conversation without messages", hint="Give at least one user message")
    return parsed


def check_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...]:
    """Check the tools of a conversation, as plain JSON objects; PromptError for what is none."""
    if tools is None:
        return ()
    if not isinstance(tools, Sequence):
        raise PromptError("tools is not a list", expected="a list of JSON schemas", found=type(tools).__name__)
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, Mapping):
            raise PromptError(
                "not a tool", where=f"tool {number}", expected="a JSON schema, as an object", found=type(tool).__name__
            )
    return tuple(_json(tool, f"tool {number}") for number, tool in enumerate(tools, 1))


def message_context(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it; what it does not have is absent. Of a picture they are told that it is
    there."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind} for part in message.parts]
    content = message.content if isinstance(message.content, str) else parts
    context: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning is not None:
        context["reasoning"] = context["reasoning_content"] = message.reasoning
    if message.tool_calls:
        context["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({} if call.id is None else {"id": call.id})
            for call in message.tool_calls
        ]
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return context | {key: value for key, value in named.items() if value is not None}


def _message(value: Message | Mapping[str, Any], where: str) -> Message:
    if isinstance(value, Message):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping):
        raise PromptError("not a message", where=where, found=type(value).__name__)
    role = _text(value.get("role"), "role", where)
    if role not in ROLES:
        raise PromptError("unknown role", where=where, expected=", ".join(ROLES), found=ascii(role)[:40])
    calls = value.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)):
        raise PromptError("tool_calls is not a list", where=where, found=type(calls).__name__)
    content = value.get("content")
    if content is None and (role != "assistant" or not calls):
        keys = ascii(", ".join(map(str, value)))[:80]
        raise PromptError(
            "no content", where=where, expected='"content": text', found="None" if "content" in value else keys
        )
    reasoning = value.get("reasoning", value.get("reasoning_content"))
    optional = {"reasoning": reasoning} | {key: value.get(key) for key in ("tool_call_id", "name")}
    return Message(
        role,
        _content(content, role, where),
        tool_calls=tuple(_call(call, where) for call in calls),
        **{key: _text(text, key, where) for key, text in optional.items() if text is not None},
    )


def parse_parts(value: Iterable[object], where: str) -> tuple[str | Media, ...]:
    """Check the parts of a content, given as objects or as what this returns; PromptError names the first that is
    wrong."""
    return tuple(_part(part, f"{where}, part {number}") for number, part in enumerate(value, 1))


def _content(value: object, role: str, where: str) -> str | tuple[str | Media, ...]:
    if not isinstance(value, (list, tuple)):
        return _text("" if value is None else value, "content", where)
    parts = parse_parts(value, where)
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "".join(texts)
    if role == "assistant":
        raise PromptError("an answer has no pictures or videos", where=where, hint="Put them into a user's message")
    return parts


def _part(value: object, where: str) -> str | Media:
    if isinstance(value, Media | str):
        return value if isinstance(value, Media) else _text(value, "a part", where)
    fields = value if isinstance(value, Mapping) else {}
    kind = fields.get("type")
    match kind if isinstance(kind, str) else None:
        case "text":
            return _text(fields.get("text"), "text", where)
        case "image" | "video" as seen:
            return parse_media(fields, seen, where)
    raise PromptError(
        "not a part of a content",
        where=where,
        expected='{"type": "text", "text": …}, {"type": "image", "image": …} or {"type": "video", "video": …}',
        found=f"type {ascii(kind)[:40]}" if fields else type(value).__name__,
    )


def _call(value: object, where: str) -> ToolCall:
    where = f"{where}, tool call"
    name = arguments = id = None
    if isinstance(value, ToolCall):
        name, arguments, id = value.name, value.arguments, value.id
    elif isinstance(value, Mapping) and isinstance(function := value.get("function", value), Mapping):
        name, arguments, id = function.get("name"), function.get("arguments", {}), value.get("id")
        if isinstance(arguments, str):
            arguments = _json(arguments or "{}", where)
    if not isinstance(name, str) or not isinstance(arguments, Mapping) or not isinstance(id, str | None):
        raise PromptError(
            "not a tool call", where=where, expected='{"function": {"name": text, "arguments": an object or its JSON}}'
        )
    id = None if id is None else _text(id, "id", where)
    return ToolCall(_text(name, "name", where), _json(arguments, where), id)


def _text(value: object, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{what} is not text", where=where, found=type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"a lone surrogate at character {error.start}"
        raise PromptError(f"{what} is not Unicode text", where=where, found=found) from None
    return value


def _json(value: object, where: str) -> Any:
    """A value, or what JSON text says, as the plain JSON that it is."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=_object)
        return parse_json(text.encode(), where=where)
    except JsonError as error:
        raise PromptError("not JSON", where=where, found=error.found or error.what) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError("not JSON", where=where, found=ascii(str(error))[:80]) from None


def _object(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__}")
