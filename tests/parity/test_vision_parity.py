"""Pictures and videos against transformers, in four layouts: logits, and 32 greedy tokens that are the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ernie_rt
from support.devices import DEVICES

if TYPE_CHECKING:
    from support.vision_judge import Oracle

from support.judge import noise, worst
from support.vision_judge import SPECS, Judge, answer, calibrate

WITHIN_FLOAT64 = 1e-12
WITHIN_FLOAT32 = 2e-5
TIMES_BFLOAT16 = 3.0
USUAL = "more-time, packed"
"""The checkpoint of the tests that are not long: its answers hang on positions more than the others' do."""
ALL = [pytest.param(name, marks=() if name == USUAL else pytest.mark.long) for name in SPECS]

Measure = Callable[[str, float, float], None]


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The calibrated checkpoint of a name, with what transformers makes of prompts."""
    return cache(lambda name: calibrate(SPECS[name], tmp_path_factory.mktemp("vision")))


@pytest.mark.parametrize("name", ALL)
def test_reference(name: str, oracle_of: Callable[[str], Oracle], measured: Measure) -> None:
    """Where transformers computes in float64 throughout."""
    compare(oracle_of(name), measured, WITHIN_FLOAT64, backend="reference", dtype="float64")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ALL)
def test_eager(name: str, device: str, oracle_of: Callable[[str], Oracle], measured: Measure) -> None:
    compare(oracle_of(name), measured, WITHIN_FLOAT32, backend="eager", device=device, dtype="float32")


@pytest.mark.parametrize("name", ALL)
def test_onnx(name: str, oracle_of: Callable[[str], Oracle], measured: Measure) -> None:
    pytest.importorskip("onnxruntime")
    compare(oracle_of(name), measured, WITHIN_FLOAT32, backend="onnx", device="cpu", dtype="float32")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ALL)
def test_bfloat16(name: str, device: str, oracle_of: Callable[[str], Oracle], measured: Measure) -> None:
    """Of all prompts together: in 16 bits an expert flips now and then, here or in transformers."""
    oracle = oracle_of(name)
    judge = Judge(oracle.saved, "bfloat16")
    with ernie_rt.load(oracle.folder, backend="eager", device=device, dtype="bfloat16") as model:
        found, yardstick, expected = (
            np.concatenate(list(logits))
            for logits in (
                (answer(model, prompt, 0)[0] for prompt in oracle.prompts.values()),
                (judge.answer(prompt, 0)[0] for prompt in oracle.prompts.values()),
                (oracle.logits[kind][: len(prompt.ids)] for kind, prompt in oracle.prompts.items()),
            )
        )
    ratio = noise(found, expected) / noise(yardstick, expected)
    measured("eager bfloat16 with pictures, noise over transformers'", ratio, TIMES_BFLOAT16)


def compare(oracle: Oracle, measured: Measure, within: float, **how: Any) -> None:
    with ernie_rt.load(oracle.folder, max_context=128, **how) as model:
        for kind, prompt in oracle.prompts.items():
            logits, tokens = answer(model, prompt)
            measured(f"{how['backend']} {how['dtype']}, {kind}", worst(logits, oracle.logits[kind]), within)
            assert tokens == oracle.greedy[kind], kind
