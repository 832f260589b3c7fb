"""Eager PyTorch against transformers: float32 within 2e-5 of its float64, bfloat16 within three times its noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

import ernie_rt
from support.checkpoints import NAMES
from support.devices import DEVICES

if TYPE_CHECKING:
    from support.judge import Oracle

WITHIN_FLOAT32 = 2e-5
TIMES_BFLOAT16 = 3.0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_float32_logits(
    name: str, device: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]
) -> None:
    from support.judge import worst

    oracle = oracle_of(name)
    with ernie_rt.load(oracle.folder, backend="eager", device=device, dtype="float32") as model:
        for length, ids in oracle.prompts.items():
            error = worst(model.logits(ids), oracle.logits[length])
            measured(f"eager float32, {length} tokens", error, WITHIN_FLOAT32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_float32_greedy_continuation(name: str, device: str, oracle_of: Callable[[str], Oracle]) -> None:
    oracle = oracle_of(name)
    with ernie_rt.load(oracle.folder, backend="eager", device=device, dtype="float32") as model:
        for length, ids in oracle.prompts.items():
            tokens = model.generate_ids(ids, max_new_tokens=48, temperature=0, ignore_eos=True)
            assert tokens == oracle.greedy[length], f"after {length} tokens"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_logits(
    name: str, device: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]
) -> None:
    oracle = oracle_of(name)
    compare_bfloat16(oracle, device, oracle.spec.prompts[1], measured)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_logits_of_the_longest_prompt(
    name: str, device: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]
) -> None:
    oracle = oracle_of(name)
    compare_bfloat16(oracle, device, oracle.spec.prompts[-1], measured)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_transformers_in_float32_agrees(
    name: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]
) -> None:
    """The yardstick: what float32 costs transformers itself, and that it changes no greedy token."""
    from support.judge import Judge, worst

    oracle = oracle_of(name)
    judge = Judge(oracle.folder, "float32")
    for length, ids in oracle.prompts.items():
        error = worst(judge.logits(ids), oracle.logits[length])
        measured(f"transformers float32, {length} tokens", error, WITHIN_FLOAT32)
        assert judge.greedy(ids)[0] == oracle.greedy[length], f"after {length} tokens"


def compare_bfloat16(oracle: Oracle, device: str, length: int, measured: Callable[[str, float, float], None]) -> None:
    from support.judge import Judge, noise

    ids, expected = oracle.prompts[length], oracle.logits[length]
    yardstick = noise(Judge(oracle.folder, "bfloat16").logits(ids), expected)
    with ernie_rt.load(oracle.folder, backend="eager", device=device, dtype="bfloat16") as model:
        error = noise(model.logits(ids), expected)
    measured(f"eager bfloat16, {length} tokens, noise", error, TIMES_BFLOAT16 * yardstick)
    measured(f"eager bfloat16, {length} tokens, noise over transformers'", error / yardstick, TIMES_BFLOAT16)
