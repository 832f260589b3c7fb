"""Text to token ids and back, by the tokenizer files of a checkpoint."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ernie_rt.errors import PromptError, TokenizerError
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.text.added_tokens import AddedToken, Cutter, Spacing, strip_front
from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.parsers import ANSWER_TAGS
from ernie_rt.text.pieces import SPACE, Encoder
from ernie_rt.text.vocabulary import Vocabulary, read_vocabulary


@dataclass(frozen=True, slots=True, repr=False)
class Tokenizer:
    """Encodes plain text and decodes ids. Immutable, and safe to share between threads.

    `pieces[id]` is what an id adds to the text, in UTF-8; a byte piece is one byte, perhaps part of a character. There
    is one for every row of the embedding. Ids at or above `vocab_size` are padding: nothing encodes to them, they
    decode to nothing, and a sampler masks them.
    """

    vocab_size: int
    """One more than the highest id that stands for something."""
    pieces: tuple[bytes, ...]
    special: frozenset[int]
    """The ids that `decode` leaves out."""
    reserved: Mapping[str, int]
    """Every token that only `encode_special` gives, by its string; those not in `special` decode to it."""
    added: tuple[AddedToken, ...]
    """The tokens that are found in text before its pieces are merged."""
    spacing: Spacing
    """Where a space is put in front of text."""
    notes: tuple[str, ...]
    """Where the checkpoint's files disagree, and which one was believed."""
    _shown: tuple[bytes, ...]
    """`pieces`, those of `special` empty."""
    _specials: Mapping[str, AddedToken]
    _finder: TokenFinder
    """Finds `reserved`."""
    _cutter: Cutter
    _chunk: re.Pattern[str] | None
    _encode: Encoder

    @classmethod
    def load(cls, folder: Path, config: ModelConfig) -> Tokenizer:
        """Read the tokenizer files of a checkpoint (see `read_vocabulary`); raises TokenizerError."""
        vocabulary = read_vocabulary(folder, config.vocab_size)
        pieces = vocabulary.pieces + (b"",) * (config.vocab_size - len(vocabulary.pieces))
        hidden = frozenset(t.id for t in vocabulary.reserved if t.special and t.content not in ANSWER_TAGS)
        shown = list(pieces)
        for id in hidden:
            shown[id] = b""
        specials = {token.content: token for token in vocabulary.reserved}
        return cls(
            vocab_size=len(vocabulary.pieces),
            pieces=pieces,
            special=hidden,
            reserved={content: token.id for content, token in specials.items()},
            added=vocabulary.matched,
            spacing=vocabulary.spacing,
            notes=vocabulary.notes,
            _shown=tuple(shown),
            _specials=specials,
            _finder=TokenFinder(specials),
            _cutter=Cutter(vocabulary.matched, vocabulary.spacing),
            _chunk=_chunks(vocabulary),
            _encode=vocabulary.encode,
        )

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size:,} ids, {len(self.reserved):,} of them reserved>"

    @property
    def specials(self) -> tuple[AddedToken, ...]:
        """`reserved`, with what is said of each."""
        return tuple(self._specials.values())

    def encode(self, text: str) -> list[int]:
        """The ids of `text` as content: no bos or eos, and "</s>" is four characters.

        No text gives an id of `reserved`; those of `added` are found in it, and spaces are put in front of it where
        the checkpoint's files ask for that. Time grows with the length of the text, whatever it says.
        """
        return self.encode_template(text, ())

    def encode_template(self, text: str, specials: Iterable[tuple[int, int]]) -> list[int]:
        """The ids of a text in which reserved tokens lie at `specials`, beginning and end of each, in order.

        PromptError for what is no Unicode text, TokenizerError for a token that the tokenizer does not have.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                "the text is not Unicode text", found=f"a lone surrogate at character {error.start}"
            ) from None
        found = ((start, end, self._special(text[start:end])) for start, end in specials)
        parts: list[int | str] = []
        for part in self._cutter.cut(text, found):
            if isinstance(part, int) or self._chunk is None:
                parts.append(part)
            else:
                parts += self._chunk.findall(part)
        distinct = list(dict.fromkeys(part for part in parts if isinstance(part, str)))
        table = dict(zip(distinct, self._encode(distinct), strict=True))
        return [id for part in parts for id in ((part,) if isinstance(part, int) else table[part])]

    def find_special(self, text: str) -> Iterator[tuple[int, int]]:
        """Where reserved tokens stand in a text that a template wrote: beginning and end of each."""
        return self._finder.find(text)

    def encode_special(self, token: str) -> int:
        """The id of a reserved token by its string: what a chat template puts between contents."""
        return self._special(token).id

    def _special(self, content: str) -> AddedToken:
        token = self._specials.get(content)
        if token is None:
            raise TokenizerError(
                "the tokenizer has no such special token",
                found=ascii(content[:40]),
                hint="Download the checkpoint's added_tokens.json and tokenizer_config.json anew, "
                "or its tokenizer.json: one is missing or of another model",
            )
        return token

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`: pieces joined with nothing between them, bytes that are no UTF-8 as U+FFFD.

        Where the tokenizer puts a space in front of text, one at the beginning is taken off.
        """
        ids = list(ids)
        if ids:
            self.piece(min(ids))
            self.piece(max(ids))
        table = self._shown if skip_special else self.pieces
        text = b"".join([table[id] for id in ids]).decode("utf-8", "replace")
        return strip_front(text, self.spacing.strip)[0]

    def piece(self, id: int) -> bytes:
        """What one id adds to the text, a special one nothing; TokenizerError for one that the model does not have."""
        if not 0 <= id < len(self.pieces):
            raise TokenizerError("no such token id", expected=f"0 to {len(self.pieces) - 1}", found=id)
        return self._shown[id]


class Detokenizer:
    """Decodes one sequence as its ids arrive; what it gives, joined, is `decode` of all of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.spacing.strip

    def push(self, id: int) -> str:
        """The characters that `id` completes; "" while the bytes of one are incomplete."""
        text, self._strip = strip_front(self._utf8.decode(self._tokenizer.piece(id)), self._strip)
        return text

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character. The sequence may then start anew."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._strip = self._tokenizer.spacing.strip
        return text


def shown_piece(piece: bytes) -> str:
    """A piece as text; one that is no character by itself as its bytes, such as `<0xE4>`."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in piece)


def _chunks(vocabulary: Vocabulary) -> re.Pattern[str] | None:
    """A pattern that cuts text where no piece can lie across, so that chunks encode one by one; None if there is none.

    Text is full of equal words, and each has to be encoded once. No piece goes from another character to a space: true
    of a vocabulary that was trained with words in mind, and looked up here. The same for a newline on either side.
    """
    if any(SPACE in name.lstrip(SPACE) for name in vocabulary.names):
        return None
    spaces = f"[ {SPACE}]"
    if any("\n" in name and name.strip("\n") for name in vocabulary.names):
        return re.compile(f"{spaces}*[^ {SPACE}]+|{spaces}+")
    return re.compile(f"{spaces}*[^ {SPACE}\n]+|{spaces}+|\n+")
