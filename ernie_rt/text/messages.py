"""The messages of a conversation, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ernie_rt.errors import PromptError

ROLES: Final = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `reasoning` and `tool_calls` are an assistant's; `tool_call_id` and `name` a tool's."""

    role: str
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template renders. `tools` are JSON schemas of functions, as objects."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    add_generation_prompt: bool = True


def parse_messages(messages: Iterable[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """Check messages, given as Message or as OpenAI-style objects; PromptError names the first that is wrong.

    An object's `content` may be None or a list of `{"type": "text", "text": …}`, its reasoning is under `reasoning` or
    `reasoning_content`, and a tool call's `arguments` may be JSON in a string.
    """
    parsed = tuple(
        message if isinstance(message, Message) else _message(message, f"message {number}")
        for number, message in enumerate(messages, 1)
    )
    if not parsed:
        raise PromptError("a conversation without messages", hint="Give at least one user message")
    for number, message in enumerate(parsed, 1):
        if message.role not in ROLES:
            raise PromptError(
                "unknown role", where=f"message {number}", expected=", ".join(ROLES), found=ascii(message.role)[:40]
            )
    return parsed


def message_context(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it; what it does not have is absent."""
    context: dict[str, Any] = {"role": message.role, "content": message.content}
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


def _message(value: Mapping[str, Any], where: str) -> Message:
    if not isinstance(value, Mapping):
        raise PromptError("not a message", where=where, found=type(value).__name__)
    reasoning = value.get("reasoning", value.get("reasoning_content"))
    texts = {"role": value.get("role"), "reasoning": reasoning}
    texts |= {key: value.get(key) for key in ("tool_call_id", "name")}
    for key, text in texts.items():
        if not isinstance(text, str) and (text is not None or key == "role"):
            raise PromptError(f"{key} is not text", where=where, found=type(text).__name__)
    calls = value.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)):
        raise PromptError("tool_calls is not a list", where=where, found=type(calls).__name__)
    return Message(
        role=value["role"],
        content=_content(value.get("content"), where),
        reasoning=reasoning,
        tool_calls=tuple(_call(call, where) for call in calls),
        tool_call_id=value.get("tool_call_id"),
        name=value.get("name"),
    )


def _content(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        texts = [part.get("text") for part in value if isinstance(part, Mapping) and part.get("type") == "text"]
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(value):
            return "".join(strings)
    raise PromptError("content is not text", where=where, expected='text, or a list of {"type": "text", "text": …}')


def _call(value: object, where: str) -> ToolCall:
    if isinstance(value, ToolCall):
        return value
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(function, Mapping):
        name, arguments, id = function.get("name"), function.get("arguments", {}), value.get("id")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                arguments = None
        if isinstance(name, str) and isinstance(arguments, Mapping) and (id is None or isinstance(id, str)):
            return ToolCall(name, arguments, id)
    raise PromptError(
        "not a tool call", where=where, expected='{"function": {"name": text, "arguments": an object or its JSON}}'
    )
