"""The suite that every backend is held to, and what finds the piece that is wrong.

SUITE = Suite("mine")

@pytest.mark.parametrize("check", SUITE.checks(), ids=str)
def test_conformance(check):
    check.verify()
"""

from __future__ import annotations

from ernie_rt.conformance.declared import Deviation, Expectations, Features
from ernie_rt.conformance.report import Report, Result
from ernie_rt.conformance.suite import LEVELS, Check, Suite

__all__ = ["LEVELS", "Check", "Deviation", "Expectations", "Features", "Report", "Result", "Suite"]
