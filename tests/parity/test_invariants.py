"""The same logits whichever way a sequence is fed: whole, in chunks, token by token, alone, beside others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ernie_rt

if TYPE_CHECKING:
    from support.judge import Oracle

NAMES = ["dense-head-dim", "dense-bias", "moe", "moe-leading-dense"]
LENGTHS = (1, 2, 7, 33, 64, 100, 150)
REFERENCE = 1e-12
"""float64 rounds at 1e-16; sums of up to 200 terms over a few layers stay far below this."""
TIMES_OWN_ERROR = 4.0
"""Two evaluations that each err by e differ by at most 2e; e is itself measured on one of them, so as much again."""


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_whole_is_in_chunks(
    backend: str,
    name: str,
    chunk: int,
    oracle_of: Callable[[str], Oracle],
    measured: Callable[[str, float, float], None],
) -> None:
    from support.judge import worst

    oracle = oracle_of(name)
    ids, exact = oracle.prompts[200], oracle.exact[200]
    with ernie_rt.load(oracle.folder, backend=backend, device="cpu", dtype=DTYPES[backend]) as model:
        whole = model.logits(ids)
        parts = model.logits(ids, chunk=chunk)
    limit = REFERENCE if backend == "reference" else TIMES_OWN_ERROR * worst(whole, exact)
    measured(f"{backend}, chunks of {chunk} against whole", worst(parts, whole.astype(np.float64)), limit)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_alone_is_in_a_batch(
    backend: str, name: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]
) -> None:
    from support.judge import worst

    oracle = oracle_of(name)
    prompts = batch(oracle)
    with ernie_rt.load(
        oracle.folder, backend=backend, device="cpu", dtype=DTYPES[backend], max_sequences=len(prompts)
    ) as model:
        alone = np.concatenate([model.logits(ids) for ids in prompts])
        together = np.concatenate(model.logits_batch(prompts))
        tokens_alone = [model.generate_ids(ids, max_new_tokens=12, temperature=0, ignore_eos=True) for ids in prompts]
        tokens_together = model.generate_batch(prompts, max_new_tokens=12, ignore_eos=True)
    limit = REFERENCE
    if backend == "eager":
        with ernie_rt.load(oracle.folder, backend="reference", dtype="float64") as model:
            limit = TIMES_OWN_ERROR * worst(alone, np.concatenate([model.logits(ids) for ids in prompts]))
    measured(f"{backend}, in a batch of 7 against alone", worst(together, alone.astype(np.float64)), limit)
    assert tokens_together == tokens_alone


def batch(oracle: Oracle) -> list[list[int]]:
    """Seven prompts of different lengths and contents, cut from the calibrated one of 1,500 tokens."""
    starts = np.cumsum((0, *LENGTHS[:-1]))
    return [oracle.prompts[1500][start : start + length] for start, length in zip(starts, LENGTHS, strict=True)]


DTYPES = {"reference": "float64", "eager": "float32"}
