"""Which frames of a video are taken: Baidu's rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import OptionError
from ernie_rt.vision.frames import chosen_frames
from ernie_rt.vision.video import load_video


def as_numpy_does(count: int, rate: float) -> list[int]:
    """Baidu's rule as it is written down there."""
    duration = count / rate
    if 16 <= int(duration * 2) <= 180:
        indices = np.round(np.arange(0, duration, 1 / 2) * rate).astype(int)
        return [int(index) for index in indices if index < count]
    target = min(16 if int(duration * 2) < 16 else 180, count)
    return np.linspace(0, count, target + 1).astype(int)[:-1].tolist()


@pytest.mark.parametrize(
    ("count", "rate", "taken", "first", "last"),
    [
        (900, 30.0, 60, [0, 15, 30, 45], 885),
        (120, 24.0, 16, [0, 7, 15, 22], 112),
        (15_000, 25.0, 180, [0, 83, 166, 250], 14_916),
        (7, 25.0, 7, [0, 1, 2, 3], 6),
        (60, 29.97, 16, [0, 3, 7, 11], 56),
        (17, 2.0, 17, [0, 1, 2, 3], 16),
        (1, 30.0, 1, [0], 0),
    ],
)
def test_known_videos(count: int, rate: float, taken: int, first: list[int], last: int) -> None:
    chosen = chosen_frames(count, rate)
    assert (len(chosen), chosen[:4], chosen[-1]) == (taken, first, last)


@given(st.integers(1, 100_000), st.sampled_from([1.0, 5.0, 10.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30000 / 1001, 60.0]))
def test_the_same_as_numpy(count: int, rate: float) -> None:
    assert chosen_frames(count, rate) == as_numpy_does(count, rate)


@given(st.integers(1, 10**6), st.floats(1e-3, 1e3), st.floats(0.01, 240), st.integers(1, 720), st.integers(1, 720))
def test_within_its_limits_for_every_video(count: int, rate: float, fps: float, least: int, most: int) -> None:
    least = min(least, most)
    chosen = chosen_frames(count, rate, fps=fps, min_frames=least, max_frames=most)
    assert min(least, count) - 1 <= len(chosen) <= most and chosen == sorted(chosen)
    assert chosen[0] == 0 and chosen[-1] < count


@pytest.mark.parametrize(
    "option",
    [
        {"fps": 0.0},
        {"fps": float("nan")},
        {"fps": 241.0},
        {"fps": "2"},
        {"min_frames": 0},
        {"max_frames": 721},
        {"max_frames": 2.5},
    ],
)
def test_impossible_rates(option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(option))}: an impossible number of frames"):
        load_video(np.zeros((1, 28, 28, 3), np.uint8), **option)  # type: ignore[arg-type]
