"""An executable whose cache rows are token ids: cheap, and wrong tokens come out of every wrong row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ernie_rt.backend import LAST_SAMPLED, CacheShape, MemoryReport, Step, StepLimits, StepResult

VOCAB = 13


def next_token(context: Sequence[int]) -> int:
    """What the toy says after `context`: it depends on every token and on its place."""
    total = 0
    for token in context:
        total = (total * 31 + token + 1) % 1_000_003
    return total % VOCAB


def answer(ids: Sequence[int], max_new_tokens: int, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    """The continuation that a run must give."""
    tokens = list(ids)
    for _ in range(max_new_tokens):
        tokens.append(next_token(tokens))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(ids) :]


@dataclass(frozen=True, eq=False)
class ToyPending:
    owner: ToyExecutable
    number: int
    value: StepResult

    def result(self) -> StepResult:
        assert self.number not in self.owner.read, "a step is read once"
        self.owner.read.append(self.number)
        return self.value


class ToyExecutable:
    """Checks every step against what it admits, keeps ids in cache rows, and samples itself when told to."""

    def __init__(self, cache: CacheShape, admits: StepLimits, *, samples: bool = False) -> None:
        self.cache = cache
        self.admits = admits
        self.samples = samples
        self.steps: list[Step] = []
        self.read: list[int] = []
        self._rows = np.full(cache.pages * cache.page_size, -7, np.int64)
        self._last = np.full(admits.max_sequences, -7, np.int64)

    def submit(self, step: Step) -> ToyPending:
        self._check(step)
        self.steps.append(step)
        asked = step.ids == LAST_SAMPLED
        assert self.samples or not asked.any(), "only an executable that samples understands -1"
        ids = np.where(asked, self._last[step.seats[step.sequence]], step.ids)
        assert ((ids >= 0) & (ids < VOCAB)).all()
        self._rows[step.write] = ids
        tokens = np.empty(len(step.rows), np.int32)
        for place, row in enumerate(step.rows):
            own = (step.context_sequence == step.sequence[row]) & (step.context_index <= step.index[row])
            tokens[place] = next_token(self._rows[step.context[own]].tolist())
            self._last[step.seats[step.sequence[row]]] = tokens[place]
        logits = np.zeros((len(tokens), VOCAB), np.float32)
        logits[np.arange(len(tokens)), tokens] = 1.0
        value = StepResult(logits)
        if self.samples:
            value = StepResult(logits if step.want_logits else None, tokens)
        return ToyPending(self, len(self.steps) - 1, value)

    def copy(self, source: int, destination: int, length: int) -> None:
        assert self.cache.kind == "slots"
        assert source > destination >= 0
        first, second = source * self.cache.page_size, destination * self.cache.page_size
        self._rows[second : second + length] = self._rows[first : first + length]
        self._rows[first : first + self.cache.page_size] = -7

    def memory(self) -> MemoryReport:
        return MemoryReport(0, self._rows.nbytes)

    def close(self) -> None:
        pass

    def _check(self, step: Step) -> None:
        cache, admits, new = self.cache, self.admits, step.new
        assert step.page_size == cache.page_size
        assert 1 <= len(step.ids) <= admits.max_tokens
        assert 1 <= len(new) <= admits.max_sequences
        assert (new >= 1).all()
        assert admits.max_prefills is None or (new > 1).sum() <= admits.max_prefills
        assert admits.mixed or (new == 1).all() or (new > 1).all()
        assert len(set(step.seats.tolist())) == len(step.seats)
        assert ((step.seats >= 0) & (step.seats < admits.max_sequences)).all()
        assert (np.diff(step.rows) > 0).all()
        for sequence, length in enumerate(step.lengths.tolist()):
            used = -(-length // cache.page_size)
            assert (step.tables[sequence, :used] >= 0).all()
        pages = step.tables[step.tables >= 0].tolist()
        assert len(set(pages)) == len(pages), "a page has two owners"
        assert all(page < cache.pages for page in pages)
        if cache.kind == "slots":
            assert step.tables.shape[1] == 1
            if not admits.mixed and (new == 1).all():
                assert step.tables[:, 0].tolist() == list(range(len(new))), "a decode leaves a slot idle"
