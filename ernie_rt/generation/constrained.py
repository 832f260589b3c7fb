"""What an answer must be, where it has parts: reasoning first, then text or tool calls, in the tags of its template."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from ernie_rt.errors import OptionError
from ernie_rt.sampling.constraint import Constraint, ConstraintState, Mask
from ernie_rt.sampling.phases import Anything, Either, Fixed, Phases
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.stops import StopMatcher
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer

THOUGHT: Final = "</think>"
REST_OF_CHARACTER: Final = 3
"""So many more bytes may complete a character of UTF-8."""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """That an answer is a tool call, or several if `parallel`; `call` says what the JSON of each must be.

    With `text` the answer may be that in place of calls.
    """

    call: Constraint
    parallel: bool = True
    text: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Anything up to `</think>`; where that has not come within `budget` tokens, those of `closing` must come.

    A character that is half there is completed before. A budget of None has no end.
    """

    tokenizer: Tokenizer
    budget: int | None
    closing: Fixed

    def start(self) -> ConstraintState:
        return _ReasoningState(self)


def answer_constraint(
    constraint: Constraint | ToolCalls | None, budget: int | None, prompt: ChatPrompt, tokenizer: Tokenizer
) -> Constraint | None:
    """What all that comes after a prompt must be, when the answer must be this and reasoning has so many tokens.

    Reasoning comes first where the prompt begins it. Texts and calls stand within the tags that the template has for
    them. OptionError where the prompt has no place for what is asked.
    """
    if budget is None and constraint is None:
        return None
    thinking, tags = prompt.thinking, prompt.tags
    if budget is not None and not thinking:
        raise OptionError(
            "thinking_budget is for models that think", found="a prompt that makes none think", hint="Leave it out"
        )

    def tagged(tag: str, within: Constraint, *, newlines: int) -> tuple[Constraint, ...]:
        opening, closing = "\n" * newlines * thinking + f"<{tag}>\n", f"\n</{tag}>"
        return Fixed(spelled(tokenizer, THOUGHT, opening)), within, Fixed(spelled(tokenizer, "x", closing))

    def text_of(text: Constraint) -> Constraint:
        if "<response>" in tags:
            return Phases(tagged("response", text, newlines=1))
        return Phases((Fixed(spelled(tokenizer, THOUGHT, "\n\n")), text)) if thinking else text

    match constraint:
        case None:
            answer: Constraint = Anything()
        case ToolCalls(call, parallel, text):
            if "<tool_call>" not in tags:
                raise OptionError("the prompt has no place for tool calls", hint="Use a model that can call tools")
            answer = Phases(tagged("tool_call", call, newlines=2), repeats=parallel)
            if text is not None:
                answer = Either((answer, text_of(text)))
        case text:
            answer = text_of(text)
    if not thinking:
        return answer
    closing = f"\n{THOUGHT}\n" if constraint is None else f"\n{THOUGHT}"
    return Phases((Reasoning(tokenizer, budget, Fixed(spelled(tokenizer, "<think>\nx", closing))), answer))


def plain_constraint(constraint: Constraint | ToolCalls | None, budget: int | None) -> Constraint | None:
    """The same for what is no conversation."""
    for name, given in (("thinking_budget", budget is not None), ("ToolCalls", isinstance(constraint, ToolCalls))):
        if given:
            raise OptionError(f"{name} is for conversations, which have a chat template", hint="Use `chat`")
    assert not isinstance(constraint, ToolCalls)
    return constraint


def spelled(tokenizer: Tokenizer, before: str, text: str) -> tuple[int, ...]:
    """The ids of a text that a template writes, behind other text of it."""
    first, whole = (tokenizer.encode_template(part, tokenizer.find_special(part)) for part in (before, before + text))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, whole, strict=False))
    return tuple(whole[len(list(same)) :])


class _ReasoningState:
    def __init__(self, reasoning: Reasoning) -> None:
        self._reasoning = reasoning
        self._tokens = 0
        self._text = Detokenizer(reasoning.tokenizer)
        self._end = StopMatcher((THOUGHT,))
        self._closing = reasoning.closing.start() if reasoning.budget == 0 else None

    @property
    def complete(self) -> bool:
        return bool(self._end.stopped) if self._closing is None else self._closing.complete

    may_end = complete

    def mask(self) -> Mask | None:
        return None if self._closing is None else self._closing.mask()

    def accept(self, token: int) -> None:
        if self._closing is not None:
            self._closing.accept(token)
            return
        text = self._text.push(token)
        self._end.push(text)
        self._tokens += 1
        if self._reasoning.budget is not None and not self.complete:
            within_character = not text and bool(self._reasoning.tokenizer.piece(token))
            if self._tokens >= self._reasoning.budget + REST_OF_CHARACTER * within_character:
                self._closing = self._reasoning.closing.start()
