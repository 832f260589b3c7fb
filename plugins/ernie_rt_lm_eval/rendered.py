"""Conversations that a chat template rendered, as the harness hands them on: as text, with more behind it."""

from __future__ import annotations

from collections.abc import Sequence

from ernie_rt.text.spans import Span, find_scaffold, spans_text
from ernie_rt.text.tokenizer import Tokenizer


class Rendered:
    """Remembers where the template wrote special tokens, so that none comes of what a task says."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[int, int]]] = {}
        self._endings: set[str] = set()

    def keep(self, spans: Sequence[Span], tokenizer: Tokenizer) -> str:
        """The text of a conversation; `find` knows it from now on."""
        text = spans_text(spans)
        self._known[text] = find_scaffold(spans, tokenizer)
        if spans and spans[-1].scaffold:
            self._endings.add(spans[-1].text)
        return text

    def find(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens lie in a text that is, or begins with, one that was kept; nowhere in any other."""
        if text in self._known:
            return self._known[text]
        for ending in self._endings:  # what the template writes last, before an answer
            end = len(text)
            while (start := text.rfind(ending, 0, end)) >= 0:
                known = self._known.get(text[: start + len(ending)])
                if known is not None:
                    return known
                end = start + len(ending) - 1
        return []
