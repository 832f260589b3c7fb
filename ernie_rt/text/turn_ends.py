"""What ends an answer: the token that a chat template puts after one, read off what it renders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.messages import Conversation, Message, ToolCall
from ernie_rt.text.parsers import ANSWER_TAGS

ANSWER: Final = "27182818"
"""An answer that templates leave as it is: nothing to trim, to spell in capitals or to escape."""
CALLS: Final = ("31415926", "16180339")
"""What two tool calls look up, as plain."""
NEXT: Final = "57721566"
"""What the turn after an answer says."""

_SYSTEM, _USER = Message("system", "Be brief."), Message("user", "Hello.")
_TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks it up.", "parameters": {}}}


def _answered(answer: Message, *others: Message) -> tuple[Conversation, ...]:
    """An answer as the last turn and with another after it."""
    tools = (_TOOL,) if answer.tool_calls else ()
    after = Message("tool", NEXT, name="look_up") if answer.tool_calls else Message("user", NEXT)
    before = (*others, _USER, answer)
    return Conversation((*before, after), tools, False), Conversation(before, tools, False)


_TOOL_CALLS = tuple(ToolCall("look_up", {"what": text}) for text in CALLS)

TALKS: Final[tuple[Conversation, ...]] = (
    *_answered(Message("assistant", ANSWER)),
    *_answered(Message("assistant", ANSWER), _SYSTEM),
    *_answered(Message("assistant", ANSWER, tool_calls=_TOOL_CALLS)),
    *_answered(Message("assistant", "", tool_calls=_TOOL_CALLS[1:])),
)
"""Conversations with an answer. A template may refuse some: it needs a system turn, or has no place for tools."""


def turn_ends(texts: Iterable[str], tokens: TokenFinder) -> list[str]:
    """The tokens that end an answer, each once, of what a template made of `TALKS`, or of some of them.

    That is, of the `tokens` between what an assistant says last and what the next turn says, the first: but for the
    tags of an answer, and for those that stand within an answer as well, before its tool calls and between them, unless
    there are no others.
    """
    within: set[str] = set()
    gaps: list[list[str]] = []
    for text in texts:
        places = [place for part in (ANSWER, *CALLS) if (place := text.rfind(part)) >= 0]
        if places:
            within.update(tokens.findall(text[min(places) : max(places)]))
            gap = text[max(places) :].split(NEXT, 1)[0]
            gaps.append([token for token in tokens.findall(gap) if token not in ANSWER_TAGS])
    firsts = (next((token for token in gap if token not in within), gap[0]) for gap in gaps if gap)
    return list(dict.fromkeys(firsts))
