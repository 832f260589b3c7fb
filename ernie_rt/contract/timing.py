"""How long a step takes, and each node of its lowered graph."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of one step: of all of it, of `nodes` by the names of their first values, and of `others`, what else was
    done, in words. What is known of neither is missing; `unexplained` is what remains."""

    seconds: float
    nodes: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def unexplained(self) -> float:
        return self.seconds - sum(self.nodes.values()) - sum(self.others.values())


class Stopwatch:
    """Runs from when it is made: each call gives the time since the one before to a node, or to what else was done."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._nodes: dict[str, float] = {}
        self._others: dict[str, float] = {}

    def node(self, name: str) -> None:
        self._nodes[name] = self._lap()

    def other(self, what: str) -> None:
        self._others[what] = self._lap()

    def times(self) -> StepTimes:
        return StepTimes(time.perf_counter() - self._began, self._nodes, self._others)

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
