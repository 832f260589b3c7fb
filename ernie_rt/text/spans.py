"""A rendered conversation in parts: who wrote what decides how it is encoded."""

from __future__ import annotations

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


def encode_spans(spans: Iterable[Span], tokenizer: Tokenizer) -> list[int]:
    """The ids of `spans`: special tokens of the scaffold by id, all text between two of them encoded as content.

    TokenizerError for a `token` that the tokenizer does not have.
    """
    texts: list[str] = []
    specials: list[tuple[int, int]] = []
    length = 0
    for span in spans:
        if span.token:
            specials.append((length, length + len(span.text)))
        elif span.scaffold:
            specials += [(length + start, length + end) for start, end in tokenizer.find_special(span.text)]
        texts.append(span.text)
        length += len(span.text)
    return tokenizer.encode_template("".join(texts), specials)
