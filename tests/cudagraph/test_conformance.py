"""The conformance suite, through Triton's interpreter; by default what takes it seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ernie_rt.conformance.cases import model_cases
from ernie_rt.conformance.judge import Judge
from ernie_rt.conformance.models import Specimen, run_model
from ernie_rt.conformance.suite import Suite
from ernie_rt.host import PluginHost

pytestmark = pytest.mark.usefixtures("coarse")
DTYPES = ("float32", "bfloat16", "float16")


def check(dtype: str, levels: list[str], wanted: Callable[[str], bool] = lambda name: True) -> None:
    suite = Suite("cudagraph", PluginHost(), "cpu", dtype)
    results = [check.run() for check in suite.checks(levels) if wanted(str(check))]
    assert results and all(result.status in ("passed", "skipped") for result in results), [
        result for result in results if result.status not in ("passed", "skipped")
    ]


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_blocks(dtype: str) -> None:
    check(dtype, ["L1"], lambda name: any(op in name for op in ("block", "head", "embed", "rope_rows")))


def test_the_beginning_of_a_picture() -> None:
    """Of the micro-model that sees one short prompt, in place of all that L2 runs."""
    (case,) = (case for case in model_cases() if case.name == "vl")
    specimen = Specimen.of_case(case, full=False)
    specimen = replace(specimen, prompts=(specimen.prompts[2][:7],), new_tokens=2)
    subject = Suite("cudagraph", PluginHost(), "cpu", "float32").subject
    run = run_model(subject, specimen, batches=False, taps=False)
    assert not Judge(subject, specimen).verdict(run).problems


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", ["L0", "L1", "L2", "L3", "L4", "L5"])
def test_every_level(level: str, dtype: str) -> None:
    check(dtype, [level])
