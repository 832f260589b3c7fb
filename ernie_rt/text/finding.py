"""Finds any of many strings in a text, in time that grows with the text alone."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property


class TokenFinder:
    """Finds tokens in text: the leftmost, of several that begin there the longest, and then on behind its end.

    However many tokens there are, and however they overlap, the time is linear in the text (Aho and Corasick 1975, read
    from the right: what a place of the text ends with, seen from there, is what begins at it).
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(sorted(set(tokens)))

    def __reduce__(self) -> tuple[type[TokenFinder], tuple[tuple[str, ...]]]:
        return TokenFinder, (self._tokens,)

    @cached_property
    def _states(self) -> _States:
        """Made when a text comes: of a thousand special tokens they take long, and most models are never asked."""
        return _States(self._tokens)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each token begins and ends."""
        states = self._states
        for run in states.runs.finditer(text):
            first, end = run.span()
            lengths = [0] * (end - first)
            state = 0
            for place in range(end - 1, first - 1, -1):
                state = states.step(state, text[place])
                lengths[place - first] = states.longest[state]
            place = first
            while place < end:
                length = lengths[place - first]
                if length:
                    yield place, place + length
                place += length or 1

    def findall(self, text: str) -> list[str]:
        """The tokens of a text, in their order."""
        return [text[start:end] for start, end in self.find(text)]


class _States:
    """What is known of a text at a place: the longest beginning of a token, read from the right, that it ends with."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self.longest = [0]
        """Of each state, the length of the longest token that it ends with."""
        for token in tokens:
            state = 0
            for character in reversed(token):
                if character not in self._next[state]:
                    self._next[state][character] = len(self._next)
                    self._next.append({})
                    self.longest.append(0)
                state = self._next[state][character]
            self.longest[state] = len(token)
        self._fall = [0] * len(self._next)  # the state of the longest proper end of a state's text
        states = deque(self._next[0].values())
        while states:
            state = states.popleft()
            for character, following in self._next[state].items():
                self._fall[following] = self.step(self._fall[state], character)
                self.longest[following] = self.longest[following] or self.longest[self._fall[following]]
                states.append(following)
        # No token reaches out of a run of characters that tokens are made of.
        letters = "".join(sorted({character for token in tokens for character in token}))
        shortest = min(map(len, tokens), default=1)
        self.runs = re.compile(f"[{re.escape(letters)}]{{{shortest},}}" if letters else "(?!)")

    def step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._fall[state]
        return self._next[state].get(character, 0)
