"""A stranger's chat template: rendered in a sandbox, with what it wrote told from what it was given.

It is rendered twice: with the conversation as it is, and with an unguessable placeholder for every text in it. Where
the second, its placeholders filled in, gives the first, everything outside them is the template's own.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from ernie_rt.errors import PromptError, TemplateError
from ernie_rt.files import MIB
from ernie_rt.text import sandbox
from ernie_rt.text.messages import Conversation, message_context
from ernie_rt.text.spans import Span, find_media
from ernie_rt.text.tokenizer import Tokenizer

KEPT: Final = frozenset({"role", "type"})
"""Values that templates compare with their own words; as special tokens they are refused."""
MAX_BYTES: Final = sandbox.OUTPUT_BYTES // 2
"""What messages and tools may take as JSON; a template writes them once, with something around them."""

THINKING_MODE: Final = "thinking_mode"
MODES: Final = {True: "open", False: "close"}
SWITCHES: Final = ("enable_thinking", THINKING_MODE)
"""What a template refers to that can be told whether the model is to think."""

WIDTH: Final = len(str(MAX_BYTES))
"""Digits of a placeholder's number."""


def template_context(chat: Conversation, tokens: Mapping[str, str]) -> dict[str, Any]:
    """What a template may refer to; without tools, `tools` is None. A wish about thinking is said in the words of
    transformers' templates and of Baidu's."""
    thinks = chat.thinking
    wish = {} if thinks is None else {"enable_thinking": thinks, "options": {THINKING_MODE: MODES[thinks]}}
    return {
        **tokens,
        **wish,
        "messages": [message_context(message) for message in chat.messages],
        "tools": list(chat.tools) or None,
        "documents": None,
        "add_generation_prompt": chat.add_generation_prompt,
    }


def render_foreign(
    renderer: sandbox.Renderer,
    template: str,
    chat: Conversation,
    tokens: Mapping[str, str],
    tokenizer: Tokenizer,
    where: str,
) -> list[Span]:
    """Render a template that nobody vouches for; TemplateError or TemplateLimitError.

    A template may look into its texts (strip white space, cut thinking out of history), so that placeholders do not
    give the same. Then its output counts as scaffold as a whole, provided that it has the same special tokens in the
    same order as with placeholders, and none of a text's own, which a third rendering marks. Otherwise TemplateError.

    PromptError for messages that are too large, and for tools and messages that the template leaves out; answers may
    be cut.
    """
    context = template_context(chat, tokens)
    size = len(json.dumps([context["messages"], context["tools"]], ensure_ascii=False).encode())
    if size > MAX_BYTES:
        raise PromptError(
            "the conversation is too large for the chat template",
            expected=f"at most {MAX_BYTES / MIB:g} MiB",
            found=f"{size / MIB:.1f} MiB",
            hint="Shorten the messages",
        )
    masks: dict[str, str] = {}
    nonce = f"{secrets.randbelow(10**20):020}"  # digits are the same in capitals, and escaped
    masked = {**context, **{key: _mask(context[key], masks, nonce, tokenizer) for key in ("messages", "tools")}}
    text, pattern = renderer.render(template, (context, masked), where)
    assert text is not None
    if pattern is not None:
        placeholder = re.compile(f"({nonce}[0-9]{{{WIDTH}}})")
        _check_shown(masked, pattern, placeholder)
        spans = _align(text, pattern, masks, placeholder)
        if spans is not None:
            return spans
        if _specials(text, tokenizer) == _specials(pattern, tokenizer):
            cores = {name: _marked(core, nonce, tokenizer) for name, core in masks.items()}
            marked = placeholder.sub(lambda found: json.dumps(cores[found[1]])[1:-1], json.dumps(masked))
            (shown,) = renderer.render(template, [json.loads(marked)], where)
            assert shown is not None
            forged = any(shown.endswith(nonce, 0, start) for start, _ in _found(shown, tokenizer))
            if not forged and _specials(shown, tokenizer) == _specials(text, tokenizer):
                return [Span(text, True)]
    raise TemplateError(
        "the chat template mixes special tokens with what the messages say",
        where=where,
        hint="Leave special tokens out of the messages",
    )


def _found(text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Where a text has special tokens, or what stands for pictures, which need be no tokens."""
    return sorted({*tokenizer.find_special(text), *find_media(text)})


def _specials(text: str, tokenizer: Tokenizer) -> list[str]:
    return [text[start:end] for start, end in _found(text, tokenizer)]


def _marked(text: str, mark: str, tokenizer: Tokenizer) -> str:
    """A text with `mark` before each of its special tokens."""
    starts = [0, *(start for start, _ in _found(text, tokenizer))]
    return mark.join(text[start:end] for start, end in itertools.pairwise([*starts, len(text)]))


def _mask(value: Any, masks: dict[str, str], nonce: str, tokenizer: Tokenizer, key: str = "") -> Any:
    """`value` with a placeholder for every text; white space at its ends stays, and so does a text of nothing else."""
    if isinstance(value, Mapping):
        for name in value:
            if _specials(str(name), tokenizer):
                raise PromptError("a special token as a key", found=ascii(name)[:80])
        return {name: _mask(item, masks, nonce, tokenizer, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item, masks, nonce, tokenizer, key) for item in value]
    if not isinstance(value, str) or not value.strip():
        return value
    if key in KEPT:
        if _specials(value, tokenizer):
            raise PromptError(f"a special token as {key}", found=ascii(value)[:80])
        return value
    core = value.strip()
    placeholder = f"{nonce}{len(masks):0{WIDTH}}"
    masks[placeholder] = core
    before, after = value.split(core, 1) if core else ("", "")
    return f"{before}{placeholder}{after}"


def _check_shown(masked: Mapping[str, Any], pattern: str, placeholder: re.Pattern[str]) -> None:
    """PromptError for tools, or the content of a message that is no answer, of which no placeholder is in `pattern`."""
    parts = {f"message {n}, of role {m['role']}": m["content"] for n, m in enumerate(masked["messages"], 1)}
    parts = {what: part for what, part in parts.items() if not what.endswith("assistant")} | {"tools": masked["tools"]}
    for what, part in parts.items():
        names = placeholder.findall(json.dumps(part))
        if names and not any(name in pattern for name in names):
            hint = "Use a model that was trained to call tools" if "tool" in what else "Leave it out"
            raise PromptError(f"the model's chat template leaves out {what}", hint=hint)


def _align(text: str, pattern: str, masks: Mapping[str, str], placeholder: re.Pattern[str]) -> list[Span] | None:
    """`pattern` with its placeholders filled in, as spans, if that is `text`: as they are, or as JSON strings."""
    spans: list[Span] = []
    position = 0
    # Split by one group: scaffold, placeholder, scaffold, …, scaffold.
    for number, part in enumerate(placeholder.split(pattern)):
        if number % 2:
            core = masks.get(part, "")
            # From the longest: what JSON makes of a backslash begins with it.
            escaped = (json.dumps(core, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
            found = next((form for form in (*escaped, core) if text.startswith(form, position)), None)
            if found is None:
                return None
            part = found
        elif not text.startswith(part, position):
            return None
        if part:
            spans.append(Span(part, number % 2 == 0))
        position += len(part)
    return spans if position == len(text) else None
