"""What is measured of this machine."""

from __future__ import annotations

import numpy as np
import pytest

from ernie_rt.planning import measuring
from ernie_rt.planning.measuring import product_flops, read_bandwidth


def test_reading_is_bytes_over_the_median_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0, 9, 0, 9, 0, 2, 0, 2, 0, 50, 0, 2, 0, 1, 0, 2, 0, 3]).tolist())
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    assert read_bandwidth(3, 3 << 20) == (3 << 20) / 2


def test_all_of_the_memory_is_read() -> None:
    seen = []
    real = np.bitwise_or.reduce

    class Spy:
        @staticmethod
        def reduce(part: np.ndarray) -> object:
            seen.append(part.nbytes)
            assert real(part) == 1  # it was written to
            return real(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring.np, "bitwise_or", Spy)
        assert read_bandwidth(2, 1 << 20) > 1e6
    assert seen == [1 << 19] * 2 * (measuring.PASSES + 1)


def test_products_grow_until_their_time_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def timed(matrix: np.ndarray) -> float:
        sizes.append(len(matrix))
        return {64: 0.001, 128: 0.0035, 256: 0.008}[len(matrix)] + 0.1 * (len(sizes) % 2)

    monkeypatch.setattr(measuring, "SMALLEST", 64)
    monkeypatch.setattr(measuring, "PRODUCT_SECONDS", 0.002)
    monkeypatch.setattr(measuring, "_product_seconds", lambda matrix: timed(matrix) - 0.1 * (len(sizes) % 2))
    assert product_flops() == pytest.approx(2 * 256**3 / 0.008)
    assert sizes[:4] == [64, 64, 128, 256]
    assert set(sizes[4:]) == {256}
