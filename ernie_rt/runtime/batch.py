"""What a step is made of, and the arrays that say so to an executable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.step import LAST_DRAWN, Int32, Step
from ernie_rt.runtime.encoder import Encoder
from ernie_rt.runtime.inputs import Array, gather
from ernie_rt.runtime.rows import Rows
from ernie_rt.runtime.seats import Seats
from ernie_rt.runtime.sequence import SequenceState

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The sequences of a step: each brings `new` tokens, of which the last `drafts` are guesses, and is owed `rows`.
    Behind them are `skipped` rows that need no step.

    `samples` says which of them get a token, `drawn` which of these from the executable; the others are sampled here.
    A sequence has left meanwhile when the tenancy of its seat has changed.
    """

    sequences: list[SequenceState]
    seats: Int32  # [B]
    tenancy: npt.NDArray[np.int64]  # [B]
    new: Int32  # [B]
    skipped: Int32  # [B]
    drafts: Int32  # [B]
    samples: Bools  # [B]
    drawn: Bools  # [B]
    rows: Int32  # [B]
    fetched: Int32  # [B], of these rows how many come back as logits: all or none
    guesses: dict[int, list[int]]  # the drafts by place in the batch
    keeps: bool  # logits or values of any of them are kept


def gather_batch(seats: Seats, chosen: Int32, new: Int32, ahead: int, guesses: dict[int, list[int]]) -> Batch:
    """The sequences of these seats with `new` tokens each, and the drafts that come after them, by seat."""
    sequences: list[Any] = [seats.sequences[seat] for seat in chosen.tolist()]
    samples = seats.samples_after(chosen, new)
    drafts = np.zeros(len(chosen), np.int32)
    for place, seat in enumerate(chosen.tolist() if guesses else ()):
        drafts[place] = len(guesses.get(seat, ()))
    drawn = samples & seats.drawn[chosen]
    rows = samples + drafts
    keeps = [sequence.request.all_logits or sequence.request.taps for sequence in sequences]
    if any(keeps):
        all_rows = np.array([sequence.request.all_logits for sequence in sequences])
        rows = np.where(all_rows, new, rows)
        fetched = np.where(all_rows | ~drawn, rows, 0)
    else:
        fetched = np.where(drawn, 0, rows)
    return Batch(
        sequences,
        chosen,
        seats.tenancy[chosen],
        new + drafts,
        seats.skipped(chosen, new),
        drafts,
        samples,
        drawn,
        rows.astype(np.int32),
        (fetched if ahead else rows).astype(np.int32),
        {place: guesses[seat] for place, seat in enumerate(chosen.tolist()) if seat in guesses} if guesses else {},
        any(keeps),
    )


def make_step(
    batch: Batch, seats: Seats, rows: Rows, page_size: int, ahead: int, encoder: Encoder | None = None
) -> Step:
    """The arrays of a step, from the state of its sequences before it."""
    chosen, past = batch.seats, seats.entered[batch.seats]
    query_start = np.zeros(len(chosen) + 1, np.int32)
    np.cumsum(batch.new, out=query_start[1:])
    return Step(
        ids=_ids(batch, seats, past),
        query_start=query_start,
        past=past,
        tables=rows.tables[chosen, : rows.held[chosen].max()],
        page_size=page_size,
        seats=chosen,
        rows=_ranges(query_start[1:] - batch.rows, batch.rows),
        fetch=_ranges(np.cumsum(batch.rows, dtype=np.int32) - batch.rows, batch.fetched) if ahead else None,
        draws=seats.draws(chosen, batch.drawn) if ahead else None,
        drafts=batch.drafts if batch.guesses else None,
        extra=_extra(batch, past, encoder),
    )


def _extra(batch: Batch, past: Int32, encoder: Encoder | None) -> dict[str, Array]:
    """What the graph takes in of the new tokens beside their ids."""
    inputs = [sequence.request.inputs for sequence in batch.sequences]
    if not inputs[0] and encoder is None:
        return {}
    spans = list(zip(past.tolist(), (past + batch.new).tolist(), strict=True))
    return gather(inputs, spans) | ({} if encoder is None else encoder.cut(batch.sequences, spans))


def _ids(batch: Batch, seats: Seats, past: Int32) -> Int32:
    """The new tokens of all sequences, LAST_DRAWN where only the device knows one."""
    known = seats.known[batch.seats]
    if len(past) == batch.new.sum() and (past >= known - 1).all():
        return np.where(past < known, seats.last[batch.seats], np.int32(LAST_DRAWN))
    ids = []
    for place, (sequence, start, new) in enumerate(
        zip(batch.sequences, past.tolist(), batch.new.tolist(), strict=True)
    ):
        guesses = batch.guesses.get(place, [])
        there = sequence.tokens[start : start + new - len(guesses)]
        ids += [*there, *[LAST_DRAWN] * (new - len(guesses) - len(there)), *guesses]
    return np.array(ids, np.int32)


def _ranges(starts: Int32, counts: Int32) -> Int32:
    """`counts[b]` numbers from `starts[b]` on, for all b, one after the other."""
    total = int(counts.sum())
    if total == len(counts) and (counts == 1).all():
        return starts
    before = np.cumsum(counts, dtype=np.int32) - counts
    numbers: Int32 = np.arange(total, dtype=np.int32) + np.repeat(starts - before, counts)
    return numbers
