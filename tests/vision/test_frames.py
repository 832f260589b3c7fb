"""Which frames of a video are taken: Baidu's rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ernie_rt.errors import OptionError
from ernie_rt.vision.frames import chosen_frames
from ernie_rt.vision.video import load_video

RATES = st.sampled_from([1.0, 5.0, 10.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30000 / 1001, 60.0])


def as_numpy_does(count: int, rate: float, fps: float = 2, least: int = 16, most: int = 180) -> list[int]:
    """Baidu's rule as it is written down there."""
    duration = count / rate
    if least <= int(duration * fps) <= most:
        indices = np.round(np.arange(0, duration, 1 / fps) * rate).astype(int)
        return [int(index) for index in indices if index < count]
    target = min(least if int(duration * fps) < least else most, count)
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
        (2159, 23.976, 181, [0, 12, 24, 36], 2158),
        (2250, 25.0, 180, [0, 12, 25, 38], 2238),  # 90 s: a frame there would be behind the last
        (2251, 25.0, 181, [0, 12, 25, 38], 2250),
        (2262, 25.0, 181, [0, 12, 25, 38], 2250),
        (2263, 25.0, 180, [0, 12, 25, 37], 2250),  # more than 90.5 s: evenly
    ],
)
def test_known_videos(count: int, rate: float, taken: int, first: list[int], last: int) -> None:
    chosen = chosen_frames(count, rate)
    assert (len(chosen), chosen[:4], chosen[-1]) == (taken, first, last)


@given(st.integers(1, 100_000), RATES)
@example(2159, 23.976)
def test_the_same_as_numpy(count: int, rate: float) -> None:
    assert chosen_frames(count, rate) == as_numpy_does(count, rate)


@given(RATES, st.sampled_from([0.3, 1.0, 2.0, 3.0, 29.97]), st.integers(1, 720), st.floats(-0.5, 1.5))
def test_the_same_as_numpy_about_the_limit(rate: float, fps: float, most: int, behind: float) -> None:
    """Of videos that end so many steps behind it."""
    count = max(1, round((most + behind) / fps * rate))
    chosen = chosen_frames(count, rate, fps=fps, min_frames=1, max_frames=most)
    assert chosen == as_numpy_does(count, rate, fps, 1, most)


@given(st.integers(1, 10**6), st.floats(1e-3, 1e3), st.floats(0.01, 240), st.integers(1, 720), st.integers(1, 720))
@example(2159, 23.976, 2.0, 16, 180)
@example(2262, 25.0, 2.0, 180, 180)
@example(901, 10.0, 8.0, 16, 720)
def test_within_its_limits_for_every_video(count: int, rate: float, fps: float, least: int, most: int) -> None:
    """One more than the limit are those that have a frame behind so many whole steps, and no time for another one."""
    least = min(least, most)
    chosen = chosen_frames(count, rate, fps=fps, min_frames=least, max_frames=most)
    one_more = int(count / rate * fps) == most and round(most * (1 / fps) * rate) < count
    assert min(least, count) - 1 <= len(chosen) <= most + one_more and chosen == sorted(chosen)
    assert len(chosen) == most + 1 or not one_more
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
