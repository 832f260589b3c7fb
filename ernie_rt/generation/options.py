"""What a caller may say about a generation, and the request that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypedDict, Unpack

from ernie_rt.display import shown
from ernie_rt.errors import OptionError
from ernie_rt.generation.constrained import ToolCalls, answer_constraint, plain_constraint
from ernie_rt.runtime.sequence import Request
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.sampling.params import SamplingParams, check_ids, whole_number
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.stops import check_stops
from ernie_rt.text.tokenizer import Tokenizer

MOST: Final = (1 << 63) - 1
"""The largest whole number that libraries take."""
NEW_TOKENS: Final = 128
"""How long a continuation may become when nobody says: a base model seldom ends by itself."""
NEW_CHAT_TOKENS: Final = 2048
"""The same of an answer in a conversation, which ends by itself."""
SAMPLING: Final = frozenset(field.name for field in fields(SamplingParams))


class GenerateOptions(TypedDict, total=False):
    """The options of everything that generates; those of SamplingParams are documented there."""

    max_new_tokens: int
    """When not given 2,048 for an answer and 128 for a continuation; `chat` and `generate` take less where the context
    ends."""
    ignore_eos: bool
    """Go on past the end-of-sequence tokens of the model; `stop_ids` still end it."""
    stop: Sequence[str]
    """Strings that end the answer: its text ends before the first of them, its ids with the token that completes it."""
    stop_ids: Iterable[int]
    """Tokens that end the answer, and are its last, beside the end-of-sequence tokens."""
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    bad_words: Sequence[Sequence[int]]
    allowed_ids: Iterable[int] | None
    min_new_tokens: int
    seed: int | None
    logprobs: int | None
    margins: bool
    constraint: Constraint | ToolCalls | None
    """What the answer must be; `chat` lets reasoning come first, and puts it into the tags that the template has."""
    thinking: bool | None
    """For `chat` with a template that has a switch: whether the answer begins with reasoning. Without: as it has it."""
    thinking_budget: int | None
    """For `chat` with a template that makes the model think: reasoning is ended after so many tokens, 0 means none."""
    reuse_after_change: bool
    """Take from the cache, too, what was computed behind other tokens: of a prompt whose first part changes the parts
    that stand where they stood. Faster, and approximate: what is taken knows the former first part, not this one."""


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    """Options that were checked, ready to make a request of any prompt."""

    max_new_tokens: int
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    sampling: SamplingParams
    constraint: Constraint | ToolCalls | None = None
    thinking_budget: int | None = None
    reuse_after_change: bool = False

    def request(
        self, ids: tuple[int, ...], known_ids: int | None, chat: tuple[ChatPrompt, Tokenizer] | None = None
    ) -> Request:
        """The request of a prompt, that of a conversation if `chat` is given; OptionError when it has no place for what
        its answer must be."""
        asked = self.constraint, self.thinking_budget
        constraint = plain_constraint(*asked) if chat is None else answer_constraint(*asked, *chat)
        return Request(
            ids, self.max_new_tokens, self.stop_ids, sampling=self.sampling, constraint=constraint, known_ids=known_ids,
            reuse_after_change=self.reuse_after_change,
        )  # fmt: skip


def positive(name: str, value: object) -> int:
    """The option as an int from 1 to `MOST`; OptionError for anything else."""
    number = whole_number(value)
    if number is None or number < 1:
        raise OptionError(f"{name} must be a whole number above 0", found=shown(value))
    if number > MOST:
        raise OptionError(f"{name} is out of range", expected=f"a whole number from 1 to {MOST}", found=shown(value))
    return number


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name} is not possible", expected="True or False", found=shown(value))
    return value


def check_options(eos_ids: Iterable[int], vocab_size: int, **options: Unpack[GenerateOptions]) -> CheckedOptions:
    """Check options for a model with these end-of-sequence tokens and so many ids.

    Raises OptionError for one that is impossible, or that there is not.
    """
    given: dict[str, Any] = dict(options)
    max_new_tokens = given.pop("max_new_tokens", NEW_TOKENS)
    max_new_tokens = positive("max_new_tokens", max_new_tokens)
    eos = () if _switch("ignore_eos", given.pop("ignore_eos", False)) else eos_ids
    stop = check_stops(given.pop("stop", ()))
    stop_ids = check_ids("stop_ids", given.pop("stop_ids", ()))
    constraint = given.pop("constraint", None)
    if not isinstance(constraint, Constraint | ToolCalls | None):
        raise OptionError(
            "constraint is none", expected="an object that has `start`, or ToolCalls", found=shown(constraint)
        )
    if given.pop("thinking", None) is not None:
        raise OptionError(
            "thinking is for conversations that are not rendered yet", hint="Give it to `chat` with messages"
        )
    budget = given.pop("thinking_budget", None)
    if budget is not None and whole_number(budget) != 0:
        budget = positive("thinking_budget", budget)
    reuse_after_change = _switch("reuse_after_change", given.pop("reuse_after_change", False))
    unknown = given.keys() - SAMPLING
    if unknown:
        raise OptionError(
            f"no such option: {', '.join(sorted(unknown))}", expected=", ".join(sorted(GenerateOptions.__annotations__))
        )
    sampling = SamplingParams(**given)
    sampling.check_vocabulary(vocab_size)
    return CheckedOptions(
        max_new_tokens, stop, frozenset([*eos, *stop_ids]), sampling, constraint, budget, reuse_after_change
    )
