"""Folders that people save with transformers, in 300 ways: each means here what it means there, or is refused.

What is refused, and why, is `support.saved.refusals.REFUSALS`; everything else has equal ids, texts, conversations,
defaults and logits. The half that transformers 4.57 saves needs a Python that has it:

    python -m venv elsewhere
    elsewhere/bin/pip install 'transformers==4.57.*' torch sentencepiece protobuf pytest
    TRANSFORMERS_4=elsewhere/bin/python make test-long
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.saved.child import write_saved
from support.saved.compare import differences
from support.saved.refusals import REFUSALS
from support.saved.told import Told

FOLDERS = 150
"""Of each version."""
BATCHES = 6
"""Each written by one child process; it has every sixth folder, so that what is refused is spread evenly."""
ELSEWHERE = "TRANSFORMERS_4"
SHORT = (13, 21, 26, 39, 42, 61)
MOST_REFUSED = 0.4
"""Of a batch; of all it is a third, and most of those for their tokenizer alone."""

Measure = Callable[[str, float, float], None]

pytestmark = pytest.mark.usefixtures("one_renderer")


def test_a_few(tmp_path: Path, measured: Measure) -> None:
    """In this process, which imports transformers for the other tests of parity too."""
    from support.saved.writing import write_all

    write_all(tmp_path, SHORT)
    check(tmp_path, SHORT, measured)


@pytest.mark.long
@pytest.mark.parametrize("first", range(BATCHES))
@pytest.mark.parametrize("version", ["installed", "4.57"])
def test_all(version: str, first: int, tmp_path: Path, measured: Measure) -> None:
    python = sys.executable if version == "installed" else os.environ.get(ELSEWHERE)
    if python is None:
        pytest.skip(f"{ELSEWHERE} names no Python with transformers 4.57: see the top of this file")
    seeds = range(first, FOLDERS, BATCHES)
    write_saved(tmp_path, seeds, python)
    check(tmp_path, seeds, measured)


def check(where: Path, seeds: Sequence[int], measured: Measure) -> None:
    """Assert that ernie-rt agrees with transformers about the folder of each seed, and that few are refused."""
    found = []
    refused = 0
    for seed in seeds:
        told = Told.read(where / str(seed))
        found += [f"seed {seed}: {line}" for line in differences(where / str(seed), told, measured)]
        refused += any(refusal.applies(told) for refusal in REFUSALS)
    assert not found, f"transformers {told.transformers}\n" + "\n".join(found)
    measured("saved folders, share that is refused in part", refused / len(seeds), MOST_REFUSED)
