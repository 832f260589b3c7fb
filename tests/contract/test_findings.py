"""What backends say for doctor is of the types that it has, or never made."""

from __future__ import annotations

from typing import Any

import pytest

from ernie_rt.contract import Executed, Finding
from ernie_rt.contract.findings import SEVERITIES


def test_what_can_be_said() -> None:
    findings = [Finding(severity, "seen", "costs", "command", "advice") for severity in SEVERITIES]
    told = Executed({"a chip": 7}, ["in a list"], tuple(findings))  # type: ignore[arg-type]
    assert told.findings[0].severity == "broken" and Executed() == Executed({}, (), ())


@pytest.mark.parametrize(
    "said", [("fatal", "seen", "costs"), ("slow", 3, "costs"), ("slow", "s", "c", None), ([], "", "")]
)
def test_what_is_no_finding(said: Any) -> None:
    with pytest.raises(TypeError, match="one of broken, slow, remark, and texts"):
        Finding(*said)


@pytest.mark.parametrize(
    "said",
    [({"chip": "many"},), ({"chip": float("nan")},), ({"chip": True},), ({3: 1},), ({}, (5,)), ({}, (), ("slow",))],
)
def test_what_was_not_executed(said: Any) -> None:
    with pytest.raises(TypeError, match="counts by place, notes in words, and Findings"):
        Executed(*said)
