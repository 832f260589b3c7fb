"""Text to token ids and back, on the SentencePiece model of a checkpoint."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sentencepiece

from ernie_rt.errors import PromptError, TokenizerError
from ernie_rt.files import FOREIGN, MIB, member, read_bytes, read_json, recognise
from ernie_rt.model.config import ModelConfig

MAX_MODEL_BYTES: Final = 8 * MIB
"""ERNIE's own has 1.6 MB."""
MAX_ADDED_BYTES: Final = 4 * MIB

NO_DUMMY_PREFIX: Final = b"\x1a\x02\x18\x00"
"""`normalizer_spec { add_dummy_prefix: false }` as protobuf: field 3, 2 bytes long, its field 3 = 0.

A message that occurs twice is merged, the last value winning, so these bytes after a serialized model override its
setting. ERNIE's text gets no space in front.
"""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Encodes plain text and decodes ids. Immutable, and safe to share between threads.

    `pieces[id]` is what an id adds to the text, in UTF-8; a byte piece is one byte, perhaps part of a character.
    Ids at or above `vocab_size` are padding rows of the embedding: no text has them and they decode to nothing.
    """

    eos_ids: tuple[int, ...]
    vocab_size: int
    """One more than the highest id that stands for something."""
    pieces: tuple[bytes, ...]
    special: frozenset[int]
    """Control pieces, the unknown piece and everything in added_tokens.json."""
    rows: int
    """The model's vocab_size: ids at or above it do not exist."""
    _processor: sentencepiece.SentencePieceProcessor

    @classmethod
    def load(cls, folder: Path, config: ModelConfig) -> Tokenizer:
        """Read tokenizer.model and, if there is one, added_tokens.json; raises TokenizerError."""
        path = member(folder, "tokenizer.model", missing=TokenizerError)
        processor, pieces, special = _read_model(read_bytes(path, MAX_MODEL_BYTES), str(path))
        if len(pieces) > config.vocab_size:
            raise TokenizerError(
                "more tokens than the model has embeddings for",
                where=str(path),
                expected=f"at most vocab_size = {config.vocab_size}",
                found=len(pieces),
                hint="The tokenizer and config.json belong to different models",
            )
        if os.path.lexists(folder / "added_tokens.json"):
            added = read_json(member(folder, "added_tokens.json"), limit=MAX_ADDED_BYTES)
            _add(added, pieces, special, config.vocab_size, str(folder / "added_tokens.json"))
        return cls(config.eos_token_id, len(pieces), tuple(pieces), frozenset(special), config.vocab_size, processor)

    def encode(self, text: str) -> list[int]:
        """The ids of `text` as content: no bos or eos, no space in front, and "</s>" is four characters."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                "the text is not Unicode text", found=f"a lone surrogate at character {error.start}"
            ) from None
        ids: list[int] = self._processor.encode(data)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`: pieces joined with nothing between them, bytes that are no UTF-8 as U+FFFD."""
        return b"".join(self.piece(id, skip_special) for id in ids).decode("utf-8", "replace")

    def piece(self, id: int, skip_special: bool = True) -> bytes:
        """What one id adds to the text; TokenizerError for an id that the model does not have."""
        if not 0 <= id < self.rows:
            raise TokenizerError("no such token id", expected=f"0 to {self.rows - 1}", found=id)
        if id >= self.vocab_size or (skip_special and id in self.special):
            return b""
        return self.pieces[id]


class Detokenizer:
    """Decodes one sequence as its ids arrive; what it gives, joined, is `decode` of all of them."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The characters that `id` completes; "" while the bytes of one are incomplete."""
        return self._utf8.decode(self._tokenizer.piece(id, self._skip_special))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character. The sequence may then start anew."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text


def _read_model(data: bytes, where: str) -> tuple[sentencepiece.SentencePieceProcessor, list[bytes], set[int]]:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data + NO_DUMMY_PREFIX)
        ids = list(range(processor.GetPieceSize()))
        names: Sequence[str] = processor.IdToPiece(ids)
        is_byte: Sequence[bool] = processor.IsByte(ids)
        special = {id for id in ids if processor.IsControl(id) or processor.IsUnknown(id)}
        pieces = [
            bytes([int(name[3:5], 16)]) if byte else name.replace("\u2581", " ").encode()
            for name, byte in zip(names, is_byte, strict=True)
        ]
    except Exception as error:  # whatever a parser in C++ makes of a stranger's bytes
        kind = recognise(data)
        raise TokenizerError(
            "not a usable SentencePiece model",
            where=where,
            found=kind or f"{type(error).__name__}: {str(error)[:200]}",
            hint="Fetch the file again" if kind is None else FOREIGN[kind],
        ) from error
    return processor, pieces, special


def _add(added: Mapping[str, object], pieces: list[bytes], special: set[int], rows: int, where: str) -> None:
    """Put the tokens of added_tokens.json (content to id) into `pieces`, which grows, and `special`."""
    base = len(pieces)
    seen: set[int] = set()
    for content, id in added.items():
        text = content.encode()
        if (
            not isinstance(id, int)
            or isinstance(id, bool)
            or not 0 <= id < rows
            or not text
            or id in seen
            or (id < base and pieces[id] != text)
        ):
            raise TokenizerError(
                "an impossible added token",
                where=where,
                expected=f"text with an id of its own from {base} to {rows - 1} (vocab_size - 1)",
                found=ascii((content[:40], id))[:80],
            )
        seen.add(id)
        special.add(id)
        pieces.extend(b"" for _ in range(id + 1 - len(pieces)))
        pieces[id] = text
