"""Constraints made of others: a text that must stand there, anything at all, one after the other, one or another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np

from ernie_rt.sampling.constraint import Constraint, ConstraintState, Mask


@dataclass(frozen=True, slots=True)
class Fixed:
    """These tokens, one after the other."""

    ids: tuple[int, ...]

    def start(self) -> ConstraintState:
        return _FixedState(self.ids)


class Anything:
    """Any tokens. It is its own state, since it remembers none of them."""

    may_end: Final = True
    complete: Final = False

    def start(self) -> ConstraintState:
        return self

    def mask(self) -> Mask | None:
        return None

    def accept(self, token: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Phases:
    """Constraints one after the other, each from where the one before may end; with `repeats`, again and again.

    Where one may end and may go on as well, both ways stay open, and the tokens that come say which was meant.
    """

    parts: tuple[Constraint, ...]
    repeats: bool = False

    def start(self) -> ConstraintState:
        last = len(self.parts) - 1
        follows = {place: place + 1 for place in range(last)} | ({last: 0} if self.repeats else {})
        return _OpenWays(self.parts, (0,), follows, {last})


@dataclass(frozen=True, slots=True)
class Either:
    """One of several constraints; the tokens that come say which."""

    parts: tuple[Constraint, ...]

    def start(self) -> ConstraintState:
        return _OpenWays(self.parts, range(len(self.parts)), {}, range(len(self.parts)))


class _FixedState:
    def __init__(self, ids: Sequence[int]) -> None:
        self._left = list(reversed(ids))

    @property
    def may_end(self) -> bool:
        return not self._left

    complete = may_end

    def mask(self) -> Mask | None:
        mask = np.zeros(self._left[-1] + 1 if self._left else 0, np.bool_)
        mask[-1:] = True
        return mask

    def accept(self, token: int) -> None:
        self._left.pop()


class _OpenWays:
    """All ways through several constraints that the tokens so far leave open, as an automaton is run that has choices.

    A constraint is begun where its turn may have come, so none of their states is ever copied.
    """

    def __init__(
        self, parts: Sequence[Constraint], first: Collection[int], follows: Mapping[int, int], last: Collection[int]
    ) -> None:
        """`first` and `last` are the places of parts that may begin and end the text, `follows` says which is next."""
        self._parts = parts
        self._follows = follows
        self._last = last
        self._masks: tuple[Mask | None] | None = None  # the mask, once it was asked for
        self._take([(place, parts[place].start()) for place in first])

    @property
    def complete(self) -> bool:
        return self.may_end and not self._ways

    def mask(self) -> Mask | None:
        if self._masks is None:
            nothing: Mask | None = np.zeros(0, np.bool_)
            self._masks = (reduce(_union, (state.mask() for _, state in self._ways), nothing),)
        return self._masks[0]

    def accept(self, token: int) -> None:
        fit = [(place, state) for place, state in self._ways if _allows(state.mask(), token)]
        for _, state in fit:
            state.accept(token)
        self._take(fit)

    def _take(self, ways: list[tuple[int, ConstraintState]]) -> None:
        """Go on with these ways, and with what may begin where they may end."""
        begun: set[int] = set()
        for place, state in ways:  # which grows meanwhile
            following = self._follows.get(place)
            if state.may_end and following is not None and following not in begun:
                begun.add(following)
                ways.append((following, self._parts[following].start()))
        self.may_end = any(state.may_end for place, state in ways if place in self._last)
        self._ways = [(place, state) for place, state in ways if not state.complete]
        self._masks = None


def _union(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return None
    shorter, longer = sorted((one, other), key=len)
    if not len(shorter):
        return longer
    union = longer.copy()
    union[: len(shorter)] |= shorter
    return union


def _allows(mask: Mask | None, token: int) -> bool:
    return mask is None or (token < len(mask) and bool(mask[token]))
