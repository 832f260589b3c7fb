"""Stop strings: found wherever they are cut, and never shown in part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise, product

import pytest

from ernie_rt.errors import OptionError
from ernie_rt.text.stops import StopMatcher, check_stops


def oracle(text: str, stops: list[str]) -> tuple[str, str]:
    """Up to where the first complete stop string begins, and that stop string."""
    for end in range(1, len(text) + 1):
        found = max((stop for stop in stops if text[:end].endswith(stop)), key=len, default="")
        if found:
            return text[: end - len(found)], found
    return text, ""


def longest_start(text: str, stops: list[str]) -> int:
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


def splits(text: str) -> Iterator[list[str]]:
    """All ways to cut a text into pieces."""
    for cuts in product([False, True], repeat=max(len(text) - 1, 0)):
        places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(text)]
        yield [text[a:b] for a, b in pairwise(places)]


def test_random_cases_in_all_splits() -> None:
    rng = random.Random(0)
    for number in range(1000):
        letters = "ab" if number % 2 else "abé师"
        text = "".join(rng.choices(letters, k=rng.randint(1, 8)))
        stops = ["".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 3))]
        expected, stopped = oracle(text, stops)
        for pieces in splits(text):
            matcher = StopMatcher(stops)
            shown = pushed = ""
            for piece in pieces:
                was_stopped = matcher.stopped
                shown += matcher.push(piece)
                pushed += piece
                if was_stopped:
                    continue
                so_far, now = oracle(pushed, stops)
                assert matcher.stopped == now
                held = 0 if now else longest_start(pushed, stops)
                assert shown == so_far[: len(so_far) - held], (text, stops, pieces)
            assert shown + matcher.flush() == expected
            assert matcher.stopped == stopped


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("abcd", ["abcd", "bc"], "a"),  # the first to be complete
        ("xabc", ["bc", "abc"], "x"),  # the longest of those that end together
        ("aaab", ["aab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("no stop", [], "no stop"),
        ("stop", ["stop"], ""),
    ],
)
def test_what_is_shown(text: str, stops: list[str], shown: str) -> None:
    matcher = StopMatcher(stops)
    assert matcher.push(text) + matcher.flush() == shown
    assert matcher.push("more") == ("" if matcher.stopped else "more")


def test_a_long_text_takes_linear_time() -> None:
    """A stop string that almost matches everywhere: 300,000 characters, each looked at a few times."""
    matcher = StopMatcher(["a" * 1000 + "b"])
    shown = matcher.push("a" * 300_000)
    assert len(shown) == 299_000 and matcher.push("b") == "" and matcher.stopped


@pytest.mark.parametrize("stops", ["one", None, 5, [""], [b"x"], ["x" * 1025], ["x"] * 65], ids=repr)
def test_stop_strings_that_are_none(stops: object) -> None:
    with pytest.raises(OptionError, match="stop"):
        check_stops(stops)
