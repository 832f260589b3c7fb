"""A rendered conversation in parts: who wrote what decides how it is encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ernie_rt.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a prompt; in `scaffold`, which the template wrote, the strings of special tokens are those tokens.

    A `token` is one whatever the tokenizer says: where it is not known as such, the prompt cannot be encoded.
    """

    text: str
    scaffold: bool
    token: bool = False


def spans_text(spans: Iterable[Span]) -> str:
    return "".join(span.text for span in spans)


def special_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds any of `tokens`, the longest where several begin; one group, so that `split` keeps them."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def encode_spans(spans: Iterable[Span], tokenizer: Tokenizer, specials: re.Pattern[str]) -> list[int]:
    """The ids of `spans`: special tokens of the scaffold by id, all text between two of them encoded as content.

    TokenizerError for a `token` that the tokenizer does not have.
    """
    ids: list[int] = []
    text: list[str] = []
    for span in spans:
        # As split by one group: text, token, text, …, text.
        parts = ["", span.text, ""] if span.token else specials.split(span.text) if span.scaffold else [span.text]
        for number, part in enumerate(parts):
            if number % 2 == 0:
                text.append(part)
            else:
                ids += tokenizer.encode("".join(text))
                ids.append(tokenizer.encode_special(part))
                text.clear()
    return ids + tokenizer.encode("".join(text))
