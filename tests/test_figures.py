"""The worst figures, which the end of the suite shows."""

from __future__ import annotations

import pytest

from support.figures import FIGURE, worst


def report(test: str, *figures: tuple[str, float, float], when: str = "call") -> pytest.TestReport:
    told: list[tuple[str, object]] = [("another", 1), *((FIGURE, figure) for figure in figures)]
    place = ("t.py", 1, test)
    return pytest.TestReport(f"t.py::{test}", place, {}, "passed", None, when, user_properties=told)  # type: ignore[arg-type]


def test_the_worst_is_nearest_to_its_limit() -> None:
    reports = [
        report("a", ("error", 0.5, 1.0), ("noise", 1.0, 3.0)),
        report("b", ("error", 0.3, 0.4)),
        report("c", ("error", 0.1, 1.0), ("noise", float("nan"), 3.0)),
        report("d", ("error", 9.0, 1.0), when="teardown"),
    ]
    found = worst(reports)
    assert found["error"] == (0.3, 0.4, "b") and found["noise"][2] == "c"
