"""A rendered conversation in parts: who wrote what decides how it is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.media import PLACEHOLDERS, Kind
from ernie_rt.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a prompt; in `scaffold`, which the template wrote, the strings of special tokens are those tokens.

    A `token` is one whatever the tokenizer says: where it is not known as such, the prompt cannot be encoded.
    """

    text: str
    scaffold: bool
    token: bool = False


_MEDIA: Final = TokenFinder(PLACEHOLDERS)


def spans_text(spans: Iterable[Span]) -> str:
    return "".join(span.text for span in spans)


def find_media(text: str) -> Iterator[tuple[int, int]]:
    """Where a text has what stands for a picture or a video: beginning and end of each."""
    return _MEDIA.find(text)


def split_media(spans: Iterable[Span]) -> Iterator[Span | Kind]:
    """The spans, and between them what the scaffold has a placeholder for: nothing else of a prompt is a picture."""
    for span in spans:
        done = 0
        for start, end in find_media(span.text) if span.scaffold else ():
            yield replace(span, text=span.text[done:start])
            yield PLACEHOLDERS[span.text[start:end]]
            done = end
        yield replace(span, text=span.text[done:])


def encode_spans(spans: Iterable[Span], tokenizer: Tokenizer) -> list[int]:
    """The ids of `spans`: special tokens of the scaffold by id, all text between two of them encoded as content.

    TokenizerError for a `token` that the tokenizer does not have.
    """
    spans = list(spans)
    return tokenizer.encode_template(spans_text(spans), find_scaffold(spans, tokenizer))


def find_scaffold(spans: Iterable[Span], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Where the text of `spans` has special tokens that the template wrote: beginning and end of each."""
    specials: list[tuple[int, int]] = []
    length = 0
    for span in spans:
        if span.token:
            specials.append((length, length + len(span.text)))
        elif span.scaffold:
            specials += [(length + start, length + end) for start, end in tokenizer.find_special(span.text)]
        length += len(span.text)
    return specials
