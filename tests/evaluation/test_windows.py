"""Windows over a text: each token is predicted once, from as much as there is before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import InputError
from ernie_rt.evaluation.windows import Window, windows


def test_as_the_page_shows() -> None:
    assert list(windows(10, 4, 2)) == [Window(0, 1, 4), Window(2, 4, 6), Window(4, 6, 8), Window(6, 8, 10)]
    assert list(windows(9, 4, 4)) == [Window(0, 1, 4), Window(4, 5, 8)]
    assert list(windows(3, 512, 256)) == [Window(0, 1, 3)]


@given(st.integers(2, 200), st.integers(2, 40), st.data())
def test_each_token_once(tokens: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context - 1))
    found = list(windows(tokens, context, stride))
    assert [place for window in found for place in range(window.first, window.stop)] == list(range(1, tokens))
    for window in found:
        assert window.begin < window.first < window.stop <= window.begin + context
    for window in found[1:]:
        assert window.first - window.begin >= context - stride


@pytest.mark.parametrize(
    ("tokens", "context", "stride", "said"),
    [(9, 1, 1, "context is not possible"), (9, 4, 5, "stride .* 1 to 4"), (9, 4, 0, "stride"), (1, 4, 2, "too short")],
)
def test_what_is_not_possible(tokens: int, context: int, stride: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(windows(tokens, context, stride))
