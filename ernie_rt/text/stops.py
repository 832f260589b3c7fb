"""The text of a sequence as its tokens come, up to a stop string."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Final

from ernie_rt.display import shown
from ernie_rt.errors import OptionError
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer

MAX_STOPS: Final = 64
MAX_STOP_LENGTH: Final = 1024
SURROGATE: Final = re.compile("[\ud800-\udfff]")


class StopMatcher:
    """Passes on text up to the first stop string, and never a fragment of one.

    The stop string that is complete first counts, the longest of several that end together; so what comes out does not
    depend on how the text was split. Held back is the longest end of the text that a stop string begins with, and no
    more. Takes time linear in the text, whatever the stop strings (Knuth, Morris, Pratt 1977, for each).
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stopped = ""
        """The stop string that came, once one has."""
        self._stops = tuple(stops)
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)  # how much of each stop string the text ends with
        self._held = ""

    def push(self, text: str) -> str:
        """What may be shown of the text so far; nothing once a stop string has come."""
        if self.stopped:
            return ""
        held = self._held + text
        for place, character in enumerate(text, len(self._held) + 1):
            found = 0
            for i, stop in enumerate(self._stops):
                matched = self._matched[i]
                while matched and stop[matched] != character:
                    matched = self._borders[i][matched]
                matched += stop[matched] == character
                self._matched[i] = matched
                if matched == len(stop):
                    found = max(found, matched)
            if found:
                self.stopped = held[place - found : place]
                self._held = ""
                return held[: place - found]
        keep = max(self._matched, default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """What was held back, at the end of a text without a stop string."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held


class TextStream:
    """The text that each token adds, up to a stop string; tokens may be pushed ahead of what is taken."""

    def __init__(self, tokenizer: Tokenizer, stops: Iterable[str], unseen: Iterable[int] = ()) -> None:
        """`unseen` tokens add nothing, as special ones do."""
        self.stops = tuple(stops)
        self._unseen = frozenset(unseen)
        self._detokenizer = Detokenizer(tokenizer)
        self._matcher = StopMatcher(self.stops)
        self._texts: deque[str] = deque()

    def push(self, token: int) -> bool:
        """Take a token; whether it completes a stop string."""
        text = "" if token in self._unseen else self._detokenizer.push(token)
        self._texts.append(self._matcher.push(text))
        return bool(self._matcher.stopped)

    @property
    def stopped(self) -> str:
        """The stop string that came, or nothing."""
        return self._matcher.stopped

    def take(self) -> str:
        """The text of the oldest token whose text was not taken yet."""
        return self._texts.popleft()

    def flush(self) -> str:
        """What is left once all is pushed."""
        return self._matcher.push(self._detokenizer.flush()) + self._matcher.flush()


def check_stops(given: object) -> tuple[str, ...]:
    """The stop strings, when they are some; raises OptionError."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError("stop is no list of strings", found=shown(given), hint="Put a single one into a list")
    stops = tuple(given)
    if len(stops) > MAX_STOPS:
        raise OptionError("too many stop strings", expected=f"at most {MAX_STOPS}", found=len(stops))
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_LENGTH or SURROGATE.search(stop):
            raise OptionError(
                "an impossible stop string",
                expected=f"1 to {MAX_STOP_LENGTH} characters of Unicode text",
                found=shown(stop),
            )
    return stops


def _borders(text: str) -> list[int]:
    """For each length n of a beginning of `text`, that of its longest proper border; at n = 0, 0."""
    borders = [0, 0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length]
        borders.append(length + (text[length] == character))
    return borders
