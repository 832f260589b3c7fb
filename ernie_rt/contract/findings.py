"""What there is to say of a machine and of what ran on it: for whoever asks why a model is slow, or does not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Severity = Literal["broken", "slow", "remark"]
"""Something does not work; it works, and could be faster; it should be known."""
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The gravest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about this machine or what is installed on it that costs its user something.

    `seen` says what was seen, `costs` what follows from it. `command` is a line for a shell that mends it, `advice` a
    sentence: what to do where no command does it, or what else there is to it. With neither there is nothing to be
    done. TypeError for anything else, where whoever made it is to blame.
    """

    severity: Severity
    seen: str
    costs: str
    command: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        texts = (self.seen, self.costs, self.command, self.advice)
        if self.severity not in SEVERITIES or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"a Finding has a severity, one of {', '.join(SEVERITIES)}, and texts; found {self!r}")


@dataclass(frozen=True, slots=True)
class Executed:
    """What really ran where since a model was compiled, as the library that ran it has it on record.

    `pieces` counts kernels, nodes or whole steps by the place where they ran, such as `{"CPUExecutionProvider": 640}`;
    `notes` are other facts in words. `findings` are what should have gone another way. TypeError for anything else.
    """

    pieces: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        counted = all(isinstance(place, str) and type(count) is int for place, count in self.pieces.items())
        said = all(isinstance(note, str) for note in self.notes)
        if not (counted and said and all(isinstance(finding, Finding) for finding in self.findings)):
            raise TypeError(f"what was Executed is counts by place, notes in words, and Findings; found {self!r}")
