"""Everything that ernie-rt's conformance suite asks of a backend."""

import pytest

from ernie_rt.conformance import Check, Suite

SUITE = Suite("yourchip")


@pytest.mark.parametrize("check", SUITE.checks(), ids=str)
def test_conformance(check: Check) -> None:
    result = check.verify()
    if result.status in ("skipped", "xfailed"):
        pytest.skip(result.reason)
