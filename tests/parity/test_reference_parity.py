"""The float64 reference against transformers in float64, on every checkpoint and its twins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ernie_rt
from support.checkpoints import NAMES, write_packed_twin, write_paddle_twin, write_published_twin

if TYPE_CHECKING:
    from support.judge import Oracle

WITHIN = 1e-6
WITHIN_THROUGHOUT = 1e-12
"""Once transformers' norms, rotation and router compute in float64 too, only float64's own rounding is left."""


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]) -> None:
    from support.judge import worst

    oracle = oracle_of(name)
    with ernie_rt.load(oracle.folder, backend="reference", dtype="float64") as model:
        for length, ids in oracle.prompts.items():
            logits = model.logits(ids)
            assert logits.dtype == np.float64
            measured(f"reference, {length} tokens", worst(logits, oracle.logits[length]), WITHIN)
            exact = worst(logits, oracle.exact[length])
            measured(f"reference, {length} tokens, float64 throughout", exact, WITHIN_THROUGHOUT)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuation(name: str, oracle_of: Callable[[str], Oracle]) -> None:
    oracle = oracle_of(name)
    with ernie_rt.load(oracle.folder, backend="reference", dtype="float64") as model:
        for length, ids in oracle.prompts.items():
            tokens = model.generate_ids(ids, max_new_tokens=48, temperature=0, ignore_eos=True)
            assert tokens == oracle.greedy[length], f"after {length} tokens"


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("moe", write_published_twin),
        ("moe-leading-dense", write_published_twin),
        ("moe", write_packed_twin),
        ("dense-tied", write_paddle_twin),
        ("dense-groups-8", write_paddle_twin),
        ("dense-bias", write_paddle_twin),
        ("moe", write_paddle_twin),
        ("moe-leading-dense", write_paddle_twin),
        ("moe-bias", write_paddle_twin),
    ],
)
def test_twin_is_the_same_model(
    name: str, twin: Callable[[Path, Path], Path], oracle_of: Callable[[str], Oracle], tmp_path: Path
) -> None:
    oracle = oracle_of(name)
    assert_same_logits(oracle.folder, twin(oracle.folder, tmp_path / "twin"), oracle.prompts[200])


def test_paddle_bfloat16_as_uint16(oracle_of: Callable[[str], Oracle], tmp_path: Path) -> None:
    oracle = oracle_of("moe")
    twin = write_paddle_twin(oracle.folder, tmp_path / "twin", bfloat16_as="U16")
    assert_same_logits(oracle.folder, twin, oracle.prompts[200])


@pytest.mark.parametrize("twin", [write_published_twin, write_packed_twin])
def test_transformers_reads_the_twin_alike(
    twin: Callable[[Path, Path], Path], oracle_of: Callable[[str], Oracle], tmp_path: Path
) -> None:
    from support.judge import Judge

    oracle = oracle_of("moe")
    judge = Judge(twin(oracle.folder, tmp_path / "twin"))
    np.testing.assert_array_equal(judge.logits(oracle.prompts[200]), oracle.logits[200])


def assert_same_logits(folder: Path, twin: Path, ids: list[int]) -> None:
    with (
        ernie_rt.load(folder, backend="reference", dtype="float64") as one,
        ernie_rt.load(twin, backend="reference", dtype="float64") as other,
    ):
        np.testing.assert_array_equal(other.logits(ids), one.logits(ids))
