"""Added tokens, and text cut at them: what the `tokenizers` package does to a text before it merges any pieces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.pieces import SPACE

FLAGS: Final = ("special", "lstrip", "rstrip", "single_word", "normalized")
WORD_CATEGORIES: Final = frozenset(["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc"])
JOINERS: Final = "\u200c\u200d"
CIRCLED: Final = re.compile("[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]")
"""Letters in circles and squares: symbols by their category, alphabetic by their property."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token beside the pieces, or what is said of a piece.

    A `special` one is no text: the template alone writes it, and decoding leaves it out; None where no file says so or
    otherwise. Any other is found in text: with the white space before it (`lstrip`) and behind it (`rstrip`), only
    between characters of no word (`single_word`), in the text as it came or, where `normalized`, after normalizing.
    """

    content: str
    id: int
    special: bool | None = None
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def flags(self) -> dict[str, bool]:
        """All that is said of it but its id, as files have it."""
        return {name: bool(getattr(self, name)) for name in FLAGS}


def parse_added(entry: Any, id: object) -> AddedToken | None:
    """An added token as tokenizer.json and added_tokens_decoder describe it; None for an impossible description."""
    if not isinstance(entry, dict):
        return None
    content = entry.get("content")
    special = entry.get("special", False)
    flags = {"special": special, "normalized": not special}
    flags |= {name: entry[name] for name in FLAGS if name in entry}
    if not isinstance(content, str) or not content or not all(isinstance(flag, bool) for flag in flags.values()):
        return None
    if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 2**31:
        return None
    return AddedToken(content, id, **flags)


@dataclass(frozen=True, slots=True)
class Spacing:
    """Where spaces are put in front of text, and taken off decoded text.

    `prepend` puts one before every run of text between tokens that are found in the text as it came, whatever the run
    begins with. `metaspace` puts one before every run between tokens of any kind ("always"), or before one at the
    beginning of the text ("first"), unless the run begins with a space. Both are words of tokenizer.json.

    `spelled` says whether normalizing spells spaces as pieces do; `strip` how many spaces decoded text loses in front.
    """

    spelled: bool = True
    prepend: bool = False
    metaspace: Literal["never", "first", "always"] = "never"
    strip: int = 0

    def normalize(self, text: str) -> str:
        """A run of text, as tokens that are `normalized` are looked for in it."""
        text = text.replace(" ", SPACE) if self.spelled else text
        return SPACE + text if self.prepend and text else text

    def front(self, text: str, first: bool) -> str:
        """A run between tokens, with the space that it gets; `first` at the beginning of the text."""
        spaced = self.metaspace == "always" or (self.metaspace == "first" and first)
        return SPACE + text if spaced and text and text[0] not in (" ", SPACE) else text


def strip_front(text: str, spaces: int) -> tuple[str, int]:
    """A text without its first `spaces` spaces, as far as it begins with some; and how many the next text may lose."""
    if not spaces or not text:
        return text, spaces
    rest = text[:spaces].lstrip(" ") + text[spaces:]
    return rest, 0 if rest else spaces - len(text)


Found = tuple[int, int, AddedToken]
"""A token, and where in a text it begins and ends."""


class Cutter:
    """Cuts text into the ids of added tokens and the runs between them, with the spaces that belong in front."""

    def __init__(self, tokens: Iterable[AddedToken], spacing: Spacing) -> None:
        tokens = tuple(tokens)
        self._spacing = spacing
        self._plain = _Finder({token.content: token for token in tokens if not token.normalized})
        self._normalized = _Finder({spacing.normalize(token.content): token for token in tokens if token.normalized})

    def cut(self, text: str, specials: Iterable[Found] = ()) -> Iterator[int | str]:
        """The parts of a text: the id of a token, or a run whose pieces are to be merged. `specials` come first."""
        for part, start in _split(text, specials):
            if isinstance(part, int):
                yield part
            else:
                yield from self._cut(part, start)

    def _cut(self, text: str, start: int) -> Iterator[int | str]:
        for part, offset in _split(text, self._plain.find(text)):
            if isinstance(part, int):
                yield part
                continue
            run = self._spacing.normalize(part)
            for piece, place in _split(run, self._normalized.find(run)):
                yield piece if isinstance(piece, int) else self._spacing.front(piece, start + offset + place == 0)


class _Finder:
    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self._tokens = tokens
        self._places = TokenFinder(tokens)

    def find(self, text: str) -> Iterator[Found]:
        return ((start, end, self._tokens[text[start:end]]) for start, end in self._places.find(text))


def _split(text: str, found: Iterable[Found]) -> Iterator[tuple[int | str, int]]:
    """Ids and what lies between them, each with the place where it begins."""
    done = 0
    for start, end, token in found:
        if token.single_word and (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])):
            continue
        if token.lstrip:
            start = max(done, _blank_before(text, start))
        if token.rstrip:
            end = _blank_behind(text, end)
        if done < start:
            yield text[done:start], done
        yield token.id, start
        done = end
    if done < len(text):
        yield text[done:], done


def _blank_before(text: str, place: int) -> int:
    while place and _is_blank(text[place - 1]):
        place -= 1
    return place


def _blank_behind(text: str, place: int) -> int:
    while place < len(text) and _is_blank(text[place]):
        place += 1
    return place


def _is_blank(character: str) -> bool:
    """White space by Unicode's property; Python counts four separators among it that do not have it."""
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"


def _is_word(character: str) -> bool:
    """A character of a word by Unicode's annex on regular expressions; "" is none."""
    return bool(character) and (
        unicodedata.category(character) in WORD_CATEGORIES or character in JOINERS or bool(CIRCLED.match(character))
    )
