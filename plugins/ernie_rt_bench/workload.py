"""What is measured, and what comes of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

from ernie_rt.vision.grid import TOKEN

Kind = Literal["prefill", "decode", "tower", "picture"]
WARM_UP: Final = 8
"""Tokens that are decoded before anything counts."""


@dataclass(frozen=True, slots=True)
class Workload:
    """In each of so many `rounds` every contender reads a prompt of each of these `contexts`, all tokens new to it, and
    writes `new` tokens after it. With a picture, of this width and height once it is resized, it reads the shortest of
    them behind that as well, and the tower alone is measured."""

    contexts: tuple[int, ...]
    new: int
    rounds: int
    threads: int
    picture: tuple[int, int] | None = None

    @property
    def picture_tokens(self) -> int:
        return 0 if self.picture is None else self.picture[0] * self.picture[1] // TOKEN**2

    @property
    def longest(self) -> int:
        """The context that this takes."""
        prompts = (*self.contexts, min(self.contexts) + self.picture_tokens, WARM_UP)
        return max(prompts) + max(self.new, WARM_UP) + 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """A prompt of `context` tokens that was read, or `tokens` that were decoded after it; a prompt of so many, of which
    the first are a picture's ("picture"), or a picture of so many that became features ("tower"). The bytes a second at
    which memory was read right before and right after; and how many cores others kept busy meanwhile (None: not
    known)."""

    kind: Kind
    context: int
    tokens: int
    seconds: float
    before: float
    after: float
    others: float | None = None

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def bandwidth(self) -> float:
        return (self.before + self.after) / 2


class Contender(Protocol):
    """A configuration of ours, or another program, in a process of its own."""

    name: str
    peak_bytes: int
    """The most private memory that its process has had; 0 where the system does not say."""

    def start(self) -> Mapping[str, Any]:
        """Load the model and warm up; what is to be known of it (see `Result.facts`)."""
        ...

    def prefill(self, context: int, new: int, seed: int) -> float:
        """Seconds of reading a prompt of so many random tokens, up to the first of `new` + 1 tokens after it."""
        ...

    def decode(self) -> float:
        """Seconds of the `new` tokens after that first one."""
        ...

    def by_op(self, context: int) -> Sequence[Mapping[str, Any]]:
        """Steps by op, as JSON (ops.StepByOp); nothing of a program that does not tell."""
        ...

    @property
    def cpu_seconds(self) -> float:
        """Processor time of its process so far; 0 where the system does not say."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Looking(Contender, Protocol):
    """One that is shown pictures."""

    def look(self, size: tuple[int, int], context: int, seed: int) -> tuple[float, float]:
        """Seconds that the tower takes for a random picture of this size, and those of reading a prompt of another one
        and `context` tokens, up to the first token after it."""
        ...


@dataclass(slots=True)
class Result:
    """What was measured of a contender.

    `facts` hold what it says of itself: `backend`, `device`, `dtype`, `reason`, `weights`; `first`, the seconds from
    the start of its process to its first token; and by context, as text, `decode_bytes` that a token after it must move
    and `prompt_flops` that it takes to read.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    steps: Sequence[Mapping[str, Any]] = ()
    peak_bytes: int = 0

    def of(self, kind: Kind, context: int) -> list[Measurement]:
        """One for each round."""
        return [each for each in self.measurements if (each.kind, each.context) == (kind, context)]

    def shares(self, context: int) -> list[float]:
        """Of each round, the share of the floor that decoding reached: what had to be read of memory in its time, of
        what memory gave; nothing where that is not known."""
        needed = self.facts.get("decode_bytes", {}).get(str(context))
        if needed is None:
            return []
        return [needed * each.speed / each.bandwidth for each in self.of("decode", context)]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, of which model and where."""

    model: str
    machine: str
    versions: Mapping[str, str]
    workload: Workload
    results: tuple[Result, ...]

    @property
    def bandwidths(self) -> list[float]:
        """All readings, bytes a second."""
        return [value for result in self.results for m in result.measurements for value in (m.before, m.after)]

    @property
    def disturbed(self) -> float:
        """The most cores that others kept busy during a measurement."""
        return max((m.others or 0.0 for result in self.results for m in result.measurements), default=0.0)

    def ratios(self, kind: Kind, context: int) -> dict[str, Spread]:
        """How many times as fast the first contender was as each other one, compared within rounds."""
        first, *others = self.results
        mine = first.of(kind, context)
        return {
            other.name: Spread.of(a.speed / b.speed for a, b in zip(mine, other.of(kind, context), strict=True))
            for other in others
        }
