"""Experts in a mapped file: how much of them is read from disk, and that it makes no difference to what is computed."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt_onnx.library import take_reads
from support.operators import Array, experts_in_tiles, run_operator

STORAGE = BlockQuantized(4, 32)
EXPERTS, HIDDEN, INNER = 4, 256, 256
"""Codes and scales of an expert are whole pages of 4 KiB each."""


def mapped(path: Path, array: Array) -> Array:
    """The same numbers in a file of which no page is in memory; the test is skipped where that cannot be had."""
    with path.open("w+b") as file:
        file.write(array.tobytes())
        file.write(bytes(1))  # to ask whether this one is in memory, which has it read
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(file.fileno(), [bytearray(1)], array.nbytes, os.RWF_NOWAIT)
            pytest.skip("this file system keeps files in memory")
        except BlockingIOError:
            pass
        except OSError:
            pytest.skip("this file system does not tell what is in memory")
    return np.memmap(path, array.dtype, "r", shape=array.shape)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is counted")
def test_what_memory_lacks_is_counted_and_computed_with(kernels: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gate_up = experts_in_tiles(rng.normal(size=(EXPERTS, INNER, 2, HIDDEN)), STORAGE)[:2]
    down = experts_in_tiles(rng.normal(size=(EXPERTS, HIDDEN, INNER)), STORAGE)[:2]
    held = dict(zip(("gate_up_codes", "gate_up_scales", "down_codes", "down_scales"), (*gate_up, *down), strict=True))
    files = {name: mapped(tmp_path / name, array) for name, array in held.items()}
    one = sum(array.nbytes for array in held.values()) // EXPERTS
    x = rng.normal(size=(1, HIDDEN)).astype(np.float32)

    def run(arrays: dict[str, Array], *ids: int) -> Array:
        routed = {"ids": np.array([ids], np.int32), "weights": np.full((1, len(ids)), 0.5, np.float32)}
        inputs = {"x": x, "norm": None, "router": None, "correction_bias": None, **routed, **arrays}
        attrs = {"top_k": 0, "norm_min": 0.0, "eps": 0.0, "residual": 0, "scarce": 1}
        found: Array = run_operator(kernels, "TiledFeedForward", inputs, **attrs)
        return found

    def reads() -> tuple[int, int]:
        found = take_reads()
        return found.chosen, found.missing

    take_reads()
    exact = run(held, 1, 3)
    with ThreadPoolExecutor() as others:
        assert others.submit(reads).result() == (0, 0)
    assert reads() == (2 * one, 0)
    for missing in (2 * one, 0):
        np.testing.assert_array_equal(run(files, 1, 3), exact)
        assert reads() == (2 * one, missing)
    run(files, 1, 0)
    assert reads() == (2 * one, one)
