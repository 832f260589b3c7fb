"""How large pictures are made: Baidu's rule, and limits that hold for whatever size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import MediaError, OptionError
from ernie_rt.vision.grid import (
    CPU_PIXELS,
    MAX_PIXELS,
    TOKEN,
    VIDEO_MAX_PIXELS,
    VIDEO_MIN_PIXELS,
    grid_of,
    merged,
    size_of,
    tokens_of,
)


@pytest.mark.parametrize(
    ("given_size", "size", "grid", "tokens"),
    [
        ((1, 1), (56, 56), (1, 4, 4), 4),
        ((42, 70), (56, 56), (1, 4, 4), 4),
        ((98, 70), (112, 56), (1, 4, 8), 8),
        ((224, 224), (224, 224), (1, 16, 16), 64),
        ((640, 480), (644, 476), (1, 34, 46), 391),
        ((1024, 768), (1036, 756), (1, 54, 74), 999),
        ((1920, 1080), (1932, 1092), (1, 78, 138), 2691),
        ((4000, 3000), (2520, 1904), (1, 136, 180), 6120),
        ((8000, 8000), (2184, 2184), (1, 156, 156), 6084),
        ((10, 1900), (28, 1904), (1, 136, 2), 68),  # transformers makes it 28x784
        ((5990, 30), (5992, 28), (1, 2, 428), 214),
    ],
)
def test_known_sizes(
    given_size: tuple[int, int], size: tuple[int, int], grid: tuple[int, int, int], tokens: int
) -> None:
    assert size_of(*given_size) == size
    assert grid_of(*given_size) == grid
    assert tokens_of(grid) == math.prod(merged(grid)) == tokens


def test_what_the_published_preprocessor_config_would_give() -> None:
    assert size_of(4000, 3000, max_pixels=6144 * TOKEN**2) == (2520, 1876)


@pytest.mark.parametrize(
    ("given_size", "frames", "grid", "tokens"),
    [
        ((1280, 720), 60, (60, 52, 92), 35_880),
        ((640, 360), 16, (16, 26, 46), 2_392),
        ((1920, 1080), 180, (180, 50, 92), 103_500),
        ((320, 240), 7, (8, 30, 40), 1_200),
        ((3840, 2160), 16, (16, 50, 92), 9_200),
        ((480, 480), 17, (18, 36, 36), 2_916),
    ],
)
def test_known_videos(given_size: tuple[int, int], frames: int, grid: tuple[int, int, int], tokens: int) -> None:
    found = grid_of(*given_size, frames, min_pixels=VIDEO_MIN_PIXELS, max_pixels=VIDEO_MAX_PIXELS)
    assert (found, tokens_of(found)) == (grid, tokens)


sides = st.integers(1, 32768)
limits = st.integers(TOKEN**2, 2 * MAX_PIXELS)


@given(sides, sides, limits, limits)
def test_limits_hold_for_every_size(width: int, height: int, least: int, most: int) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(MediaError, match="too long and narrow"):
            size_of(width, height)
        return
    size = size_of(width, height, min_pixels=least, max_pixels=most)
    assert all(side >= TOKEN and side % TOKEN == 0 for side in size)
    assert math.prod(size) <= most
    assert size[::-1] == size_of(height, width, min_pixels=least, max_pixels=most)


def test_a_cpu_gets_a_thousand_tokens() -> None:
    assert tokens_of(grid_of(4000, 3000, max_pixels=CPU_PIXELS)) == 27 * 36 == 972


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"max_pixels": "many"}, "max_pixels: an impossible limit of pixels; expected 784 to 67108864; found 'many'"),
        ({"max_pixels": 1e6}, "found 1000000.0"),
        ({"max_pixels": 783}, "max_pixels: an impossible limit of pixels; expected 784 to 67108864; found 783"),
        ({"max_pixels": 1 << 27}, "max_pixels"),
        ({"min_pixels": -1}, "min_pixels: .* expected 0 to"),
    ],
)
def test_impossible_limits(limit: dict[str, int], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        size_of(100, 100, **limit)


def test_errors_name_the_picture() -> None:
    with pytest.raises(MediaError, match=r"a\.png: .* at most 200 times as long as wide; found 1x201"):
        size_of(1, 201, where="a.png")
    with pytest.raises(MediaError, match=r"a\.png: the picture has no pixels; found 0x9"):
        size_of(0, 9, where="a.png")
