"""A request, and the sequence that it becomes while the engine works on it."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ernie_rt.runtime.inputs import Array, PerToken
from ernie_rt.runtime.items import Features, PlacedItem
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.sampling.params import GREEDY, SamplingParams
from ernie_rt.sampling.sampler import Logprobs
from ernie_rt.sampling.state import SamplerState

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Request:
    """Continue `ids` by up to `max_new_tokens`, ending after a token of `stop_ids`.

    `known_ids` is how many ids may be chosen (None: all), `constraint` says which of them at each place. With
    `all_logits` the logits after every token are kept or, where somebody wants to `visit` them, handed over as they
    come, with the place of the token that the first of them follows, and let go: anew from the beginning if need be.
    With `taps` the values are kept that the executable is tapped for.
    `chunk` bounds how many tokens of this request enter one step (None: what the executable admits). `inputs` are what
    a graph takes in for each token beside its id; `items`, in the order of their places, are pictures and videos, whose
    features take the place of what their tokens' ids stand for. Positions of several columns are those of text where
    `inputs` has none.

    Rows of the cache are reused between requests of one `namespace`: whatever else than tokens, inputs and items
    decides what K and V are, such as an adapter, or who may profit from whose prompts, has to be in it.

    Where sequences wait, a lower `priority` goes first, and tenants take turns. With `like`, a sequence of the same
    prompt, a request waits until that one's prompt is computed, and shares its rows.

    With `reuse_after_change` rows are taken of tokens, too, that were computed behind other ones: where earlier
    sequences of the namespace had the same tokens at the same places. They are not what computing them would give, so
    nobody is given what follows from them who does not ask for it.
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    all_logits: bool = False
    chunk: int | None = None
    sampling: SamplingParams = GREEDY
    constraint: Constraint | None = None
    known_ids: int | None = None
    taps: bool = False
    inputs: Mapping[str, PerToken] = field(default_factory=dict)
    items: tuple[PlacedItem, ...] = ()
    namespace: bytes = b""
    tenant: str = ""
    priority: int = 0
    like: SequenceState | None = None
    reuse_after_change: bool = False
    visit: Callable[[int, npt.NDArray[Any]], None] | None = None

    @property
    def most_entered(self) -> int:
        """The most tokens that ever enter a step: the last one sampled never does."""
        return len(self.ids) + max(self.max_new_tokens, 1) - 1

    @property
    def reuses(self) -> bool:
        """Whether rows of the cache will do in place of its first tokens: of those nothing else is wanted."""
        return not (self.all_logits or self.taps)


class Event(NamedTuple):
    """One more token of a sequence (None when it ends without one), and why it ended, if it did."""

    sequence: SequenceState
    token: int | None
    finish: Finish | None
    logprobs: Logprobs | None = None


@dataclass(slots=True, eq=False)
class SequenceState:
    """The state of one request.

    `tokens` are the prompt and what was sampled and is known. `ends` says of every further token whether the sequence
    ends with it. `seat` is its place in the scheduler's arrays while it runs, else -1; `reused` of its tokens were
    found in the cache when it was admitted last, `cached` when it first was, at the time `admitted`, and those of
    `holes`, which were computed behind other tokens, as many as `cached_after_change` when it first was; `entered` have
    entered steps when it has ended. `error` is what ended it when its `finish` is "error". `features`, by the digests
    of items, are those that it needs or needed, until it ends; where a graph takes some in, it `shows` items or could.

    `events` is where whoever waits for the sequence finds what became of it; a `listener` is told in their place, by
    the thread that made the step.
    """

    request: Request
    tokens: list[int] = field(init=False)
    ends: Callable[[int], bool] | None = None
    listener: Callable[[Event], None] | None = None
    shows: bool = False
    sampler: SamplerState = field(init=False)
    seat: int = -1
    reused: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    cached: int | None = None
    admitted: float = 0.0
    cached_after_change: int = 0
    entered: int = 0
    finish: Finish | None = None
    error: BaseException | None = None
    logits: list[npt.NDArray[Any]] = field(default_factory=list)
    taps: list[Mapping[str, npt.NDArray[Any]]] = field(default_factory=list)
    events: deque[Event] = field(default_factory=deque)
    features: dict[bytes, Features] = field(default_factory=dict)

    def __post_init__(self) -> None:
        request = self.request
        self.tokens = list(request.ids)
        self.sampler = SamplerState(
            request.sampling, request.ids, request.stop_ids, request.known_ids, request.constraint
        )

    @property
    def generated(self) -> list[int]:
        return self.tokens[len(self.request.ids) :]

    @property
    def shareable(self) -> bool:
        """Whether the rows of its prompt are there, or never will be."""
        return self.finish is not None or len(self.tokens) > len(self.request.ids)

    @property
    def encoded(self) -> bool:
        """Whether all features that it holds are whole."""
        return all(features.rows is not None for features in self.features.values())

    @property
    def not_cached(self) -> str:
        """Why not all of its prompt was found in the cache, in words; empty where all was that can be."""
        cached, total = self.cached or 0, len(self.request.ids)
        if cached + 1 >= total:
            return ""
        if cached == 0:
            said = "nothing in the cache begins like the prompt"
        else:
            said = f"the first difference from what is in the cache is at token {cached + 1:,} of {total:,}"
        if self.request.reuse_after_change and not self.cached_after_change:
            said += ", and too little of what comes after it stands where it stood"
        return said

    def exact(self, length: int) -> int:
        """How many of its first `length` rows follow from its tokens alone: those before the first hole."""
        return min(length, self.holes[0][0]) if self.holes else length

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Its first `length` rows, cut where holes begin and end."""
        cuts = [0, *(cut for hole in self.holes for cut in hole if cut < length), length]
        return list(pairwise(cuts))

    def has_rows(self, start: int, stop: int) -> bool:
        """Whether all these tokens had rows in the cache when it was admitted last."""
        for first, last in ((0, self.reused), *self.holes):
            if first <= start:
                start = max(start, last)
        return start >= stop

    def tell(self, event: Event) -> None:
        """Say what became of it."""
        if self.listener is None:
            self.events.append(event)
        else:
            self.listener(event)

    def identity(self, count: int) -> npt.NDArray[np.void]:
        """What the K and V rows of the first `count` tokens follow from, within the namespace: an item a token, equal
        for tokens that are equal in their ids, inputs, and places in equal items."""
        columns: list[Array] = [np.array(self.tokens[:count], np.int32)]
        columns += [given.cut(0, count) for _, given in sorted(self.request.inputs.items())]
        if self.shows:
            columns.append(self._shown(count))
        found = np.concatenate([_bytes_of(column) for column in columns], axis=1)
        return found.view(f"V{found.shape[1]}")[:, 0]

    def _shown(self, count: int) -> Array:
        """Of each of the first tokens the item that it is of, and its place there; zeros for one of no item."""
        shown = np.zeros(count, [("item", "V16"), ("place", np.int32)])
        for placed in self.request.items:
            there = shown[placed.start : placed.stop]
            there["item"] = np.frombuffer(hashlib.blake2b(placed.item.digest, digest_size=16).digest(), "V16")
            there["place"] = np.arange(len(there))
        return shown


def _bytes_of(rows: Array) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rows).reshape(len(rows), math.prod(rows.shape[1:])).view(np.uint8)
