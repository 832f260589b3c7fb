"""What became of the checks, for people and for programs."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from ernie_rt import __version__
from ernie_rt.display import columns

FORMAT: Final = 1
Status = Literal["passed", "failed", "skipped", "xfailed", "xpassed"]
STATUSES: Final[tuple[Status, ...]] = ("passed", "failed", "skipped", "xfailed", "xpassed")
UNPROMISED: Final = "not promised: "
BAD: Final = frozenset({"failed", "xpassed"})


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check.

    `figures` are what it measured (`margin` is the worst of them over its limit: above 1 it failed); `reason` says what
    is wrong, or why it was skipped; `route` of an op is "native", or "decomposed" where the backend runs its parts.
    What was skipped by the backend's own word has that in `because`: "not promised: FEATURES" or "declared: PATTERN".
    """

    check: str
    status: Status
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    route: str = ""
    because: str = ""
    seconds: float = 0.0

    @property
    def level(self) -> str:
        return self.check.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Report:
    """All results of a run; `subject` has backend, device, dtype, storage, and what was declared."""

    subject: Mapping[str, Any]
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Nothing failed, nothing passed that was said to fail, and there is no level of which nothing is known."""
        return not any(result.status in BAD for result in self.results) and not self.untried

    @property
    def untried(self) -> tuple[str, ...]:
        """The levels in which nothing passed. One of which nothing is promised does not count, beside others."""
        none = [level for level in self.levels if not self.count(level, "passed")]
        if len(none) < len(self.levels):
            none = [
                level for level in none
                if not all(r.because.startswith(UNPROMISED) for r in self.results if r.level == level)
            ]  # fmt: skip
        return tuple(none)

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result.level for result in self.results))

    def count(self, level: str, status: Status) -> int:
        return sum(result.level == level and result.status == status for result in self.results)

    def worst(self, level: str) -> Result | None:
        """The result nearest to its limit, or furthest beyond."""
        measured = [r for r in self.results if r.level == level and "margin" in r.figures]
        return max(measured, key=lambda r: math.inf if math.isnan(m := r.figures["margin"]) else m, default=None)

    def routes(self) -> dict[str, str]:
        """Of each op that was checked, whether the backend runs it natively or decomposed."""
        return {r.check.split("/")[1]: r.route for r in self.results if r.route}

    def to_json(self) -> dict[str, Any]:
        """All of it as what JSON has; a figure that is not finite becomes null."""
        summary = {
            level: {status: self.count(level, status) for status in STATUSES}
            | {"margin": None if (worst := self.worst(level)) is None else _finite(worst.figures["margin"])}
            for level in self.levels
        }
        results = [
            asdict(r) | {"level": r.level, "figures": {k: _finite(v) for k, v in r.figures.items()}}
            for r in self.results
        ]
        return {
            "format": FORMAT,
            "ernie_rt": __version__,
            "date": today(),
            "machine": machine(),
            "subject": dict(self.subject),
            "ok": self.ok,
            "levels": summary,
            "ops": self.routes(),
            "results": results,
        }

    def table(self) -> str:
        """A line for each level, then one for each check that needs attention, and for what was skipped by the
        backend's own word."""
        rows = [["LEVEL", *STATUSES, "WORST", "OF ITS LIMIT"]]
        for level in self.levels:
            worst = self.worst(level)
            name, margin = ("", "") if worst is None else (worst.check, f"{worst.figures['margin']:.3g}")
            rows.append([level, *(str(self.count(level, status)) for status in STATUSES), name, margin])
        lines = [columns(rows)]
        for status in ("failed", "xpassed", "xfailed"):
            lines += [f"{r.status} {r.check}: {r.reason}" for r in self.results if r.status == status]
        lines += [f"nothing passed in {level}" for level in self.untried]
        for (because, reason), count in Counter((r.because, r.reason) for r in self.results if r.because).items():
            told = because if because.startswith(UNPROMISED) else f"skipped, as {because}: {reason}"
            lines.append(f"{told} ({count})")
        return "\n".join(lines)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def machine() -> dict[str, str]:
    """What a report says of the machine that it was made on."""
    return {"system": platform.system(), "processor": _processor(), "python": platform.python_version()}


def _processor() -> str:
    """`AMD EPYC 9R14 (x86_64)`, or the architecture alone where the system says no more."""
    kind = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return kind
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name} ({kind})" if name else kind


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
