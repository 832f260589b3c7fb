"""A stranger's chat template: rendered in a sandbox, with what it wrote told from what it was given.

It is rendered twice: with the conversation as it is, and with an unguessable placeholder for every text in it. Where
the second, its placeholders filled in, gives the first, everything outside them is the template's own.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from ernie_rt.errors import PromptError, TemplateError
from ernie_rt.text import sandbox
from ernie_rt.text.messages import Conversation, message_context
from ernie_rt.text.spans import Span

KEPT: Final = frozenset({"role", "type"})
"""Values that templates compare with their own words; as special tokens they are refused."""


def template_context(chat: Conversation, tokens: Mapping[str, str]) -> dict[str, Any]:
    """What a template may refer to; without tools, `tools` is None."""
    return {
        **tokens,
        "messages": [message_context(message) for message in chat.messages],
        "tools": list(chat.tools) or None,
        "documents": None,
        "add_generation_prompt": chat.add_generation_prompt,
    }


def render_foreign(
    template: str, chat: Conversation, tokens: Mapping[str, str], specials: re.Pattern[str], where: str
) -> list[Span]:
    """Render a template that nobody vouches for; TemplateError or TemplateLimitError.

    A template may look into its texts (strip white space, cut thinking out of history), so that placeholders do not
    give the same. Then its output counts as scaffold as a whole, provided that it has the same special tokens in the
    same order as with placeholders: none of them came with a text. Otherwise TemplateError.
    """
    context = template_context(chat, tokens)
    masks: dict[str, str] = {}
    nonce = secrets.token_hex(8)
    masked = {**context, **{key: _mask(context[key], masks, nonce, specials) for key in ("messages", "tools")}}
    text, pattern = sandbox.render(template, (context, masked), where)
    assert text is not None
    if pattern is not None:
        spans = _align(text, pattern, masks, nonce)
        if spans is not None:
            return spans
        if specials.findall(text) == specials.findall(pattern):
            return [Span(text, True)]
    raise TemplateError(
        "the chat template mixes special tokens with what the messages say",
        where=where,
        hint="Leave special tokens out of the messages",
    )


def _mask(value: Any, masks: dict[str, str], nonce: str, specials: re.Pattern[str], key: str = "") -> Any:
    """`value` with a placeholder for every text; white space at its ends stays, and so does a text of nothing else."""
    if isinstance(value, Mapping):
        for name in value:
            if specials.search(str(name)):
                raise PromptError("a special token as a key", found=ascii(name)[:80])
        return {name: _mask(item, masks, nonce, specials, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item, masks, nonce, specials, key) for item in value]
    if not isinstance(value, str) or not value.strip():
        return value
    if key in KEPT:
        if specials.search(value):
            raise PromptError(f"a special token as {key}", found=ascii(value)[:80])
        return value
    core = value.strip()
    placeholder = f"z{nonce}z{len(masks)}z"
    masks[placeholder] = core
    before, after = value.split(core, 1) if core else ("", "")
    return f"{before}{placeholder}{after}"


def _align(text: str, pattern: str, masks: Mapping[str, str], nonce: str) -> list[Span] | None:
    """`pattern` with its placeholders filled in, as spans, if that is `text`: as they are, or as JSON strings."""
    spans: list[Span] = []
    position = 0
    # Split by one group: scaffold, placeholder, scaffold, …, scaffold.
    for number, part in enumerate(re.split(f"(z{nonce}z[0-9]+z)", pattern)):
        if number % 2:
            core = masks.get(part, "")
            escaped = (json.dumps(core, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
            found = next((form for form in (core, *escaped) if text.startswith(form, position)), None)
            if found is None:
                return None
            part = found
        elif not text.startswith(part, position):
            return None
        if part:
            spans.append(Span(part, number % 2 == 0))
        position += len(part)
    return spans if position == len(text) else None
