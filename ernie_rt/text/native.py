"""ERNIE's own chat templates, without Jinja.

The text-only plain template (0.3B, 21B, 300B) is known to the letter. The Thinking template (21B-A3B-Thinking) is known
by what it makes of two dozen conversations, which this one makes of them too (tests/data/ernie45); its text is not. Of
the vision-language template (VL-28B, VL-424B) some prompts are known, and a version that transformers ships; a
checkpoint that has none is given this one. A checkpoint's template counts as one of these only when it renders the same
(`PROBES`): otherwise its own text is used, as that of VL-28B-A3B-Thinking is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ernie_rt.errors import PromptError
from ernie_rt.text.media import Kind, Media
from ernie_rt.text.messages import Conversation, Message, ToolCall
from ernie_rt.text.spans import Span

Render = Callable[[Conversation, Mapping[str, str]], list[Span]]

THINK_MODE: Final = "<global_setting>\nthink_mode=True\n</global_setting>"
TOKENS: Final = re.compile(r"(<\|im_start\|>|<\|im_end\|>|</?think>)")
"""What a Thinking model cannot do without. Its other tags are tokens where the tokenizer has them."""


def render_plain(chat: Conversation, tokens: Mapping[str, str]) -> list[Span]:
    """`<|begin_of_sentence|>`, system text by itself, `User: …`, `Assistant: …<|end_of_sentence|>`."""
    _refuse_tools(chat)
    sep = tokens.get("sep_token", "<|end_of_sentence|>")
    spans = [_token(tokens.get("cls_token", "<|begin_of_sentence|>"))]
    for message in chat.messages:
        content = _text(message)
        match message.role:
            case "system":
                spans += [content, *_scaffold("\n")]
            case "user":
                spans += [*_scaffold("User: "), content, *_scaffold("\n")]
            case "assistant":
                spans += [*_scaffold("Assistant: "), content, _token(sep)]
    if chat.add_generation_prompt:
        spans += _scaffold("Assistant: ")
    return spans


def render_thinking(chat: Conversation, tokens: Mapping[str, str]) -> list[Span]:
    """`<|im_start|>role … <|im_end|>` with settings in a first system turn, results of tools in a turn of their own.

    Past reasoning is left out, save after the last user message: there the model is still at work, with tools. The
    prompt for an answer is always there, whatever `add_generation_prompt` says, as that template has it.
    """
    messages = chat.messages
    spans = _scaffold("<|im_start|>system\n")
    if messages[0].role == "system":
        spans += [*_scaffold("<system_setting>\n"), _text(messages[0])]
        spans += _scaffold("\n</system_setting>\n\n")
        messages = messages[1:]
    spans += _scaffold(THINK_MODE)
    if chat.tools:
        tools = f"[{','.join(map(_json, chat.tools))}]"
        spans += [*_scaffold("\n\n<tool_list>\n"), Span(tools, False), *_scaffold("\n</tool_list>")]
    spans += _scaffold("<|im_end|>\n\n")
    last_user = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1)
    last = messages[-1] if messages else None
    for number, message in enumerate(messages):
        follows = number > 0 and messages[number - 1].role == message.role == "tool"
        continues = number + 1 < len(messages) and messages[number + 1].role == message.role == "tool"
        spans += _scaffold("\n" if follows else f"<|im_start|>{message.role}\n")
        if message.role == "assistant":
            thinking = number > last_user and bool(message is last or message.reasoning)
            spans += _answer(message, thinking)
        elif message.role == "tool":
            spans += [
                *_scaffold("<tool_output>"),
                Span(_json(_text(message).text), False),
                *_scaffold("</tool_output>"),
            ]
        else:
            spans.append(_text(message))
        if not continues:
            spans += _scaffold("<|im_end|>\n\n")
    return [*spans, *_scaffold("<|im_start|>assistant\n<think>\n")]


def render_vision_language(chat: Conversation, tokens: Mapping[str, str]) -> list[Span]:
    """The plain template but for its newlines: one before `Assistant: `, none behind what a user says. Pictures and
    videos are numbered through the conversation.

    Without a wish the model does not think: its reasoning is there, and empty.
    """
    _refuse_tools(chat)
    spans = [_token(tokens.get("cls_token", "<|begin_of_sentence|>"))]
    numbers: dict[Kind, int] = {}
    for message in chat.messages:
        content = write_parts(message.parts, numbers)
        match message.role:
            case "system":
                spans += [*content, *_scaffold("\n")]
            case "user":
                spans += [*_scaffold("User: "), *content]
            case "assistant":
                thought = message.reasoning
                before = [*_scaffold("<think>\n"), Span(thought, False), *_scaffold("\n</think>\n")] if thought else []
                spans += [*_scaffold("\nAssistant: "), *before, *content]
                spans.append(_token(tokens.get("sep_token", "<|end_of_sentence|>")))
    if chat.add_generation_prompt:
        spans += _scaffold("\nAssistant: <think>" if chat.thinking else "\nAssistant: <think></think>")
    return spans


def write_parts(parts: Iterable[str | Media], numbers: dict[Kind, int]) -> Iterator[Span]:
    """The parts of a content: `Picture 1:` before a picture, `Video 1:` before a video, as many as `numbers` says are
    there already not counted."""
    for part in parts:
        if isinstance(part, str):
            yield Span(part, False)
            continue
        number = numbers[part.kind] = numbers.get(part.kind, 0) + 1
        name, tag = ("Picture", "IMAGE") if part.kind == "image" else ("Video", "VIDEO")
        yield from _scaffold(f"{name} {number}:<|{tag}_START|><|{part.kind}@placeholder|><|{tag}_END|>")


NATIVE: Final[Mapping[str, Render]] = {
    "ernie": render_plain,
    "ernie-thinking": render_thinking,
    "ernie-vl": render_vision_language,
}


def _answer(message: Message, thinking: bool) -> Iterator[Span]:
    if thinking:
        yield from (*_scaffold("<think>\n"), Span(message.reasoning or "", False), *_scaffold("\n</think>\n"))
    if message.content:
        yield from (*_scaffold("<response>\n"), _text(message), *_scaffold("\n</response>\n"))
    for number, call in enumerate(message.tool_calls):
        body = _json({"name": call.name, "arguments": dict(call.arguments)})
        yield from _scaffold("\n\n" if number or message.content else "\n")
        yield from (*_scaffold("<tool_call>\n"), Span(body, False), *_scaffold("\n</tool_call>\n"))


def _refuse_tools(chat: Conversation) -> None:
    if chat.tools or any(message.role == "tool" or message.tool_calls for message in chat.messages):
        raise PromptError(
            "the model's chat template has no tools",
            where="tools" if chat.tools else None,
            hint="Use a model that was trained to call tools",
        )


def _text(message: Message) -> Span:
    """The content of a message; PromptError for one with pictures."""
    if message.media:
        raise PromptError("the model's chat template has no place for pictures or videos", hint="Leave them out")
    return Span(message.text, False)


def _scaffold(text: str) -> list[Span]:
    # Split by one group: text, token, text, …, text.
    return [Span(part, True, token=number % 2 == 1) for number, part in enumerate(TOKENS.split(text)) if part]


def _token(text: str) -> Span:
    return Span(text, True, token=True)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_SYSTEM = Message("system", " Be brief.")
_USER = Message("user", "Hello ,\nworld ")
_ASSISTANT = Message("assistant", "Hi. ", reasoning="A greeting.")
_LOOK_UP = ToolCall("look_up", {"what": 'a "b"', "n": 1})
_CALL = Message("assistant", "", reasoning="I look it up.", tool_calls=(_LOOK_UP,))
_RESULT = Message("tool", '{"found": true}', name="look_up")
_TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks it <up>.", "parameters": {}}}
_TALKS = tuple(
    Conversation(messages, (), prompt)
    for prompt in (True, False)
    for messages in ((_USER,), (_SYSTEM, _USER), (_USER, _ASSISTANT), (_SYSTEM, _USER, _ASSISTANT, _USER))
)
_SEEN = Message("user", (Media("image", None), "Look ,\n", Media("video", None), Media("image", None), "\n again "))
PROBES: Final[Mapping[str, tuple[Conversation, ...]]] = {
    "ernie": _TALKS,
    "ernie-thinking": (
        *_TALKS,
        Conversation((_SYSTEM, _USER), (_TOOL, _TOOL)),
        Conversation((_USER, _CALL, _RESULT), (_TOOL,)),
        Conversation((_USER, _CALL, _RESULT, _ASSISTANT, _USER), (_TOOL,)),
        Conversation((_USER, _CALL, _RESULT, _RESULT, Message("assistant", "x", "y", (_LOOK_UP, _LOOK_UP)), _RESULT)),
        Conversation((_SYSTEM, _USER, Message("assistant", "Hi."), _SYSTEM, _ASSISTANT, _USER)),
        Conversation(
            (_USER, Message("assistant", "", None, (_LOOK_UP, _LOOK_UP)), _RESULT, Message("assistant", "Hi."))
        ),
    ),
    "ernie-vl": (
        *_TALKS,
        Conversation((_SYSTEM, _SEEN)),
        Conversation((_SEEN, Message("assistant", "Hi."), _SEEN, _ASSISTANT, _USER), (), True, True),
        Conversation((_USER, _SEEN), (), True, False),
        Conversation((_USER,), (_TOOL,)),
    ),
}
"""Conversations that use every branch of a template."""
