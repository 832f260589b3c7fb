"""A request, and the sequence that it becomes while the engine works on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from ernie_rt.sampling.params import GREEDY, SamplingParams
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.sampling.state import SamplerState

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Request:
    """Continue `ids` by up to `max_new_tokens`, ending after a token of `stop_ids`.

    `vocab_size` is how many ids may be chosen (None: all); an executable that samples on its device does not know it.
    With `all_logits` the logits after every prompt token are kept, with `taps` the values
    that the executable is tapped for. `chunk` bounds how many tokens of this request enter one step (None: what the
    executable admits).
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    all_logits: bool = False
    chunk: int | None = None
    sampling: SamplingParams = GREEDY
    vocab_size: int | None = None
    taps: bool = False

    @property
    def cached_tokens(self) -> int:
        """The most tokens that ever enter the cache: the last one sampled never does."""
        return len(self.ids) + max(self.max_new_tokens, 1) - 1


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one request.

    `tokens` are the prompt and what was sampled and is known; `unread` of its steps are submitted and not read yet, and
    sample `in_flight` more tokens; `cached` tokens have entered steps, so their K and V rows are in the cache or on
    their way. `ends` says of every further token whether the sequence ends with it. `events` wait to be yielded by the
    run that the sequence belongs to. `error` is what ended a sequence whose `finish` is "error".
    """

    request: Request
    tokens: list[int]
    ends: Callable[[int], bool] | None = None
    sampler: SamplerState = field(init=False)
    seat: int = -1
    cached: int = 0
    unread: int = 0
    in_flight: int = 0
    pages: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: Exception | None = None
    logits: list[npt.NDArray[Any]] = field(default_factory=list)
    taps: list[Mapping[str, npt.NDArray[Any]]] = field(default_factory=list)
    events: deque[Event] = field(default_factory=deque)

    def __post_init__(self) -> None:
        request = self.request
        self.sampler = SamplerState(request.sampling, request.ids, request.stop_ids, request.vocab_size)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.request.ids) :]

    @property
    def total(self) -> int:
        return len(self.tokens) + self.in_flight

    @property
    def ready(self) -> int:
        """How many tokens wait to enter a step; those in flight count where the device has them."""
        there = self.total if self.request.sampling.plain else len(self.tokens)
        return min(there, self.request.cached_tokens) - self.cached

    def samples_after(self, new: int) -> bool:
        """Whether a step that takes `new` more tokens ends with sampling one."""
        generated = self.total - len(self.request.ids)
        return self.cached + new == self.total and generated < self.request.max_new_tokens


@dataclass(frozen=True, slots=True)
class Event:
    """One more token of a sequence (None when it ends without one), and why it ended, if it did."""

    sequence: Sequence
    token: int | None
    finish: Finish | None
    logprobs: Logprobs | None = None
