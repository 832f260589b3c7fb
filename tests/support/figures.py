"""Figures that tests record, and the worst of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest

FIGURE: Final = "figure"
"""The property of a test's report with a figure's name, its value and its limit."""


def worst(reports: Iterable[pytest.TestReport]) -> dict[str, tuple[float, float, str]]:
    """Of each figure the value nearest to its limit, or furthest beyond it; the limit; the test."""
    found: dict[str, tuple[float, float, str]] = {}
    for report in reports:
        for name, told in report.user_properties if report.when == "call" else ():
            if name == FIGURE:
                figure, value, limit = told
                if figure not in found or not value / limit <= found[figure][0] / found[figure][1]:
                    found[figure] = value, limit, report.nodeid.split("::")[-1]
    return found
