"""What checks hand over, and all of it together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ernie_rt.contract.findings import SEVERITIES, Finding, Severity
from ernie_rt.doctor.trial import Tried


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about this machine that is neither good nor bad, in words."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Backend:
    """What became of a backend: what it was seen to do on each device, or why nothing was."""

    name: str
    tried: tuple[Tried, ...] = ()
    absence: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Findings, each with what it is about; the gravest first."""

    facts: tuple[Fact, ...]
    backends: tuple[Backend, ...]
    findings: tuple[tuple[str, Finding], ...]
    seconds: float = 0.0

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for _, finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return self.count("broken") == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "facts": {fact.name: fact.text for fact in self.facts},
            "backends": [asdict(backend) for backend in self.backends],
            "findings": [{"about": about, **asdict(finding)} for about, finding in self.findings],
            "seconds": self.seconds,
        }


@dataclass(slots=True)
class Notes:
    """What checks have said so far."""

    facts: list[Fact] = field(default_factory=list)
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def take(self, about: str, check: Iterable[Fact | Finding]) -> None:
        """Hear a check; one that fails itself is a finding, and what it had said by then stays."""
        for each in _guarded(about, check):
            if isinstance(each, Finding):
                self.findings.append((about, each))
            else:
                self.facts.append(each)

    def report(self, backends: Iterable[Backend], seconds: float) -> Report:
        ordered = sorted(dict.fromkeys(self.findings), key=lambda each: SEVERITIES.index(each[1].severity))
        return Report(tuple(self.facts), tuple(backends), tuple(ordered), seconds)


def _guarded(about: str, check: Iterable[Fact | Finding]) -> Iterator[Fact | Finding]:
    try:
        yield from check
    except Exception as error:
        seen = f"what there is to know of {about} could not be found out: {type(error).__name__}: {error}"
        yield Finding("broken", seen, "faults there stay unseen")
