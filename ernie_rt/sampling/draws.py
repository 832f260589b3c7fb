"""What says how a token is chosen from logits where they are, and the choice itself in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.sampling.candidates import FEW, Candidates, Care, Space, candidates
from ernie_rt.sampling.gumbel_max import UNSURE, Key, drawn_of, drawn_of_each
from ernie_rt.sampling.state import SamplerState

Array = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """How a token is chosen for each of B rows, in arrays `[B]`: all that there is to tell a device.

    A row with `known` 0 draws nothing. The others choose among the ids below it.
    """

    known: Int32
    temperature: npt.NDArray[np.float32]
    """0: the largest logit."""
    top_k: Int32
    """0: all."""
    top_p: npt.NDArray[np.float64]
    """1: all."""
    min_p: npt.NDArray[np.float64]
    """0: all."""
    seed: npt.NDArray[np.uint64]
    position: Int32
    """The place in its sequence of the token to choose."""

    @classmethod
    def of(cls, states: Sequence[SamplerState | None], known: int) -> Draws:
        """Those of sequences, of whose vocabularies `known` ids have a logit; None draws nothing."""
        rows = [
            (
                known if state.vocab_size is None else min(known, state.vocab_size), state.params.temperature,
                state.params.top_k, state.params.top_p, state.params.min_p, state.seed, state.position,
            )
            if state is not None else (0, 0.0, 0, 1.0, 0.0, 0, 0)
            for state in states
        ]  # fmt: skip
        dtypes = (np.int32, np.float32, np.int32, np.float64, np.float64, np.uint64, np.int32)
        columns = zip(*rows, strict=True) if rows else ((),) * len(dtypes)
        return cls(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))

    @classmethod
    def greedy(cls, count: int, known: int) -> Draws:
        """The largest logit of each of `count` rows."""
        return cls(
            np.full(count, known, np.int32), np.zeros(count, np.float32), np.zeros(count, np.int32),
            np.ones(count), np.zeros(count), np.zeros(count, np.uint64), np.zeros(count, np.int32),
        )  # fmt: skip

    def rows(self, which: npt.NDArray[np.integer[Any]], ahead: npt.NDArray[np.integer[Any]] | int = 0) -> Draws:
        """For each of L rows the draw `which[l]`, of the token that is `ahead[l]` places farther in its sequence."""
        taken = [getattr(self, field.name)[which] for field in fields(self)]
        taken[-1] = (taken[-1] + ahead).astype(np.int32)
        return Draws(*taken)


def draw(logits: Array, draws: Draws) -> Int32:
    """A token from each row of `logits [L, V]`; -1 where a row has no number to choose (NaN, infinity), or draws none.

    This is the meaning of sampling on a device.
    """
    assert len(logits) == len(draws.known), "a draw for each row"
    within = np.minimum(draws.known, np.int32(logits.shape[1]))  # or there would be scratch for ids without a logit
    return draw_each(logits.__getitem__, replace(draws, known=within))


def draw_each(row_of: Callable[[int], Array], draws: Draws) -> Int32:
    """`draw`, of rows that are made when they are wanted: once each, and now and then a second time."""
    tokens = np.full(len(draws.known), -1, np.int32)
    space = Space(int(draws.known.max(initial=0)))
    few: dict[int, Candidates] = {}

    def look(place: int, care: Care) -> Candidates | None:
        return candidates(
            row_of(place)[: draws.known[place]], draws.temperature[place], int(draws.top_k[place]),
            float(draws.top_p[place]), float(draws.min_p[place]), space, care,
        )  # fmt: skip

    def key(place: int) -> Key:
        return draws.seed[place], draws.position[place].astype(np.uint64)

    with np.errstate(over="ignore"):  # what overflows is found where the largest is looked at
        for place in np.flatnonzero(draws.known).tolist():
            if draws.temperature[place] == 0:
                row = row_of(place)[: draws.known[place]]
                token = int(row.argmax())  # of several with NaN, the first that has one
                tokens[place] = token if np.isfinite(row[token]) else -1
            elif (found := look(place, Care.LEAST)) is None:
                pass
            elif len(found.scores) <= FEW:
                few[place] = found
            else:
                tokens[place] = drawn_of(found, key(place), space)
        tokens[list(few)] = drawn_of_each(list(few.values()), [key(place) for place in few])
        for care in (Care.MORE, Care.MOST):
            for place in np.flatnonzero(tokens == UNSURE).tolist():
                found = look(place, care)
                assert found is not None
                tokens[place] = drawn_of(found, key(place), space)
    return tokens
