"""Positions in time, height and width: Baidu's rule."""

from __future__ import annotations

import pytest

from ernie_rt.vision.positions import rope_positions


def _positions(text: str) -> list[list[int]]:
    return [[int(n) for n in part.split(",")] * (3 if "," not in part else 1) for part in text.split()]


@pytest.mark.parametrize(
    ("length", "items", "expected"),
    [
        (4, [], "0 1 2 3"),
        (11, [(3, (1, 2, 3))], "0 1 2 3 3,3,4 3,3,5 3,4,3 3,4,4 3,4,5 6 7"),
        (9, [(1, (1, 1, 1)), (4, (1, 1, 4))], "0 1 2 3 4 4,4,5 4,4,6 4,4,7 8"),
        (12, [(2, (2, 2, 2))], "0 1 2 2,2,3 2,3,2 2,3,3 3,2,2 3,2,3 3,3,2 3 4 5"),
        (
            16,
            [(2, (6, 1, 2))],
            "0 1 2 2,2,3 3,2,2 3,2,3 4,2,2 4,2,3 5,2,2 5,2,3 6,2,2 6,2,3 7,2,2 7,2,3 8 9",
        ),
        (9, [(2, (1, 1, 2)), (6, (1, 1, 2))], "0 1 2 2,2,3 4 5 6 6,6,7 8"),
    ],
)
def test_known_prompts_have_their_positions(
    length: int, items: list[tuple[int, tuple[int, int, int]]], expected: str
) -> None:
    assert rope_positions(length, items).tolist() == _positions(expected)


def test_no_position_is_beyond_its_index() -> None:
    positions = rope_positions(40, [(0, (2, 3, 1)), (6, (1, 5, 3)), (30, (4, 1, 2))])
    assert all(max(row) <= index for index, row in enumerate(positions.tolist()))
