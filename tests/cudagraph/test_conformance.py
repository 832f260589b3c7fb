"""The conformance suite, through Triton's interpreter."""

from __future__ import annotations

import pytest

from ernie_rt.conformance.suite import Suite
from ernie_rt.host import PluginHost

pytestmark = pytest.mark.usefixtures("coarse")


def check(dtype: str, levels: list[str]) -> None:
    report = Suite("cudagraph", PluginHost(), "cpu", dtype).run(levels)
    assert report.ok, report.table()
    print(report.table())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_metadata_and_ops(dtype: str) -> None:
    check(dtype, ["L0", "L1"])


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("level", ["L2", "L3", "L4", "L5"])
def test_models(dtype: str, level: str) -> None:
    check(dtype, [level])
