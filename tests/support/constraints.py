"""Constraints for tests: of a set of texts, and ones that fail."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ernie_rt.sampling.constraint import ConstraintState, Mask


@dataclass(frozen=True)
class OneOf:
    """The text is one of these. `started` holds its states, in order."""

    texts: frozenset[tuple[int, ...]]
    started: list[OneOfState] = field(default_factory=list, compare=False)

    def start(self) -> ConstraintState:
        self.started.append(OneOfState(self.texts))
        return self.started[-1]


class OneOfState:
    def __init__(self, texts: frozenset[tuple[int, ...]]) -> None:
        self.said: tuple[int, ...] = ()
        self._texts = texts

    @property
    def may_end(self) -> bool:
        return self.said in self._texts

    @property
    def complete(self) -> bool:
        return self.may_end and not self._next()

    def mask(self) -> Mask | None:
        mask = np.zeros(max(self._next(), default=-1) + 1, np.bool_)
        mask[list(self._next())] = True
        return mask

    def accept(self, token: int) -> None:
        assert token in self._next(), f"{token} after {self.said}"
        self.said = (*self.said, token)

    def _next(self) -> set[int]:
        length = len(self.said)
        return {text[length] for text in self._texts if len(text) > length and text[:length] == self.said}


@dataclass(frozen=True)
class Broken:
    """Raises once it has so many tokens, where it is asked: by `mask`, `accept`, `may_end` or `complete`."""

    where: str
    after: int = 0
    error: type[BaseException] = ValueError

    def start(self) -> ConstraintState:
        return BrokenState(self)


class BrokenState:
    def __init__(self, broken: Broken) -> None:
        self._broken = broken
        self._tokens = 0

    def _ask(self, where: str) -> None:
        if where == self._broken.where and self._tokens >= self._broken.after:
            raise self._broken.error("not today")

    @property
    def may_end(self) -> bool:
        self._ask("may_end")
        return True

    @property
    def complete(self) -> bool:
        self._ask("complete")
        return False

    def mask(self) -> Mask | None:
        self._ask("mask")
        return None

    def accept(self, token: int) -> None:
        self._tokens += 1
        self._ask("accept")
