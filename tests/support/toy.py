"""An executable whose cache rows are token ids: cheap, and wrong tokens come out of every wrong row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ernie_rt.contract import (
    LAST_DRAWN,
    NO_NUMBER,
    CacheShape,
    ExecutableBase,
    MemoryReport,
    Step,
    StepLimits,
    StepResult,
    draw,
)

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
    error: BaseException | None = None

    def result(self) -> StepResult:
        assert self.number not in self.owner.read, "a step is read once"
        self.owner.read.append(self.number)
        if self.error is not None:
            raise self.error
        return self.value


class ToyExecutable(ExecutableBase):
    """Checks every step against what it admits, keeps ids in cache rows, and samples itself when told to."""

    def __init__(self, cache: CacheShape, admits: StepLimits, *, ahead: int = 0) -> None:
        self.cache = cache
        self.admits = admits
        self.ahead = ahead
        self.steps: list[Step] = []
        self.read: list[int] = []
        self.errors: dict[str, BaseException] = {}
        self._rows = np.full(cache.pages * cache.page_size, -7, np.int64)
        self._last = np.full(admits.max_sequences, -7, np.int64)

    def submit(self, step: Step) -> ToyPending:
        self._check(step)
        self.stumble("submit")
        self.steps.append(step)
        asked = step.ids == LAST_DRAWN
        assert self.ahead or not asked.any(), "only an executable that draws understands -1"
        ids = np.where(asked, self._last[step.seats[step.sequence]], step.ids)
        ids[asked & (ids == NO_NUMBER)] = 0  # of a sequence that ends when this is read
        assert ((ids >= 0) & (ids < VOCAB)).all()
        error = self.errors.pop("result", None)
        if error is not None:
            self._rows[step.write] = -7  # what fails has written nothing
        else:
            self.write(step, ids)
        tokens = np.empty(len(step.rows), np.int32)
        for place, row in enumerate(step.rows):
            own = (step.context_sequence == step.sequence[row]) & (step.context_index <= step.index[row])
            tokens[place] = self.next(self._rows[step.context[own]].tolist())
        logits = np.zeros((len(tokens), VOCAB), np.float32)
        logits[np.arange(len(tokens)), tokens] = 1.0
        self.spoil(step, logits)
        value = StepResult(logits)
        if self.ahead:
            assert step.draws is not None and step.fetch is not None
            where, sequence, ahead = step.drawn_rows
            drawn, counts = step.verified(draw(logits[where], step.draws.rows(sequence, ahead)))
            there = np.flatnonzero(counts)
            self._last[step.seats[there]] = drawn[there, counts[there] - 1]
            value = StepResult(logits[step.fetch] if len(step.fetch) else None, drawn, counts)
        return ToyPending(self, len(self.steps) - 1, value, error)

    def write(self, step: Step, ids: np.ndarray) -> None:
        self._rows[step.write] = ids

    def next(self, context: list[int]) -> int:
        """The token after what these rows hold."""
        return next_token(context)

    def spoil(self, step: Step, logits: np.ndarray) -> None:
        """For a test that wants other logits."""

    def copy(self, source: int, destination: int, length: int) -> None:
        assert source != destination and 0 < length <= self.cache.page_size
        self.stumble("copy")
        first, second = source * self.cache.page_size, destination * self.cache.page_size
        self._rows[second : second + length] = self._rows[first : first + length]

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        self.stumble("read_rows")
        return self._rows[rows].view(np.uint8).reshape(len(rows), 8)

    def write_rows(self, rows: np.ndarray, data: np.ndarray) -> None:
        self.stumble("write_rows")
        self._rows[rows] = np.ascontiguousarray(data).view(np.int64)[:, 0]

    def stumble(self, call: str) -> None:
        """Raise what a test has left for this call."""
        error = self.errors.pop(call, None)
        if error is not None:
            raise error

    def memory(self) -> MemoryReport:
        return MemoryReport(0, self._rows.nbytes)

    def _check(self, step: Step) -> None:
        drafts = 0 if step.drafts is None else step.drafts
        cache, admits, new = self.cache, self.admits, step.new - drafts
        assert (np.asarray(drafts) <= admits.max_drafts).all()
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
        written = (step.write // cache.page_size).tolist()
        for page in set(written):  # a page may be read by several, and is written by one
            assert (step.tables == page).sum() == 1, "a page that is written has two owners"
        assert ((step.tables >= -1) & (step.tables < cache.pages)).all()
        if cache.kind == "slots":
            assert step.tables.shape[1] == 1
            if not admits.mixed and (new == 1).all():
                assert step.tables[:, 0].tolist() == list(range(len(new))), "a decode leaves a slot idle"


class DeepToyExecutable(ToyExecutable):
    """Its rows follow from all tokens before them, as those of a model's deeper layers do; it says the same."""

    def write(self, step: Step, ids: np.ndarray) -> None:
        for place, (row, index) in enumerate(zip(step.write.tolist(), step.index.tolist(), strict=True)):
            own = (step.context_sequence == step.sequence[place]) & (step.context_index == index - 1)
            before = int(self._rows[step.context[own]][0]) if index else 0
            self._rows[row] = (before * 31 + int(ids[place]) + 1) % 1_000_003

    def next(self, context: list[int]) -> int:
        return context[-1] % VOCAB
