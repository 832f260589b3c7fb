"""A request, and the sequence that it becomes while the engine works on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Request:
    """Continue `ids` by up to `max_new_tokens`, ending after a token of `stop_ids`.

    With `all_logits` the logits after every prompt token are kept, and the taps of the steps. `chunk` bounds how many
    tokens of this request enter one step (None: what the executable admits).
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    all_logits: bool = False
    chunk: int | None = None

    @property
    def cached_tokens(self) -> int:
        """The most tokens that ever enter the cache: the last one sampled never does."""
        return len(self.ids) + max(self.max_new_tokens, 1) - 1


@dataclass(slots=True, eq=False)
class Sequence:
    """The state of one request.

    `tokens` are the prompt and what was sampled and is known; `unread` of its steps are submitted and not read yet, and
    sample `in_flight` more tokens; `cached` tokens have entered steps, so their K and V rows are in the cache or on
    their way. `events` wait to be yielded by the run that the sequence belongs to.
    """

    request: Request
    tokens: list[int]
    seat: int = -1
    cached: int = 0
    unread: int = 0
    in_flight: int = 0
    pages: list[int] = field(default_factory=list)
    finish: Finish | None = None
    logits: list[npt.NDArray[Any]] = field(default_factory=list)
    taps: list[Mapping[str, npt.NDArray[Any]]] = field(default_factory=list)
    events: deque[Event] = field(default_factory=deque)

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.request.ids) :]

    @property
    def total(self) -> int:
        return len(self.tokens) + self.in_flight

    @property
    def ready(self) -> int:
        """How many tokens wait to enter a step."""
        return min(self.total, self.request.cached_tokens) - self.cached

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
