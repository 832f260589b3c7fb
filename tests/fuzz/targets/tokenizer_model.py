"""tokenizer.model: a SentencePiece model, by its fields and by its bytes; then text through what was made of it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from random import Random

import sentencepiece

from ernie_rt.text.sentencepiece_model import MAX_MODEL_BYTES, MOST_FIELDS, read_merges, read_sentencepiece
from ernie_rt.text.tokenizer import Tokenizer
from fuzz.mutations import TEXTS, changed_message, damaged, fields, foreign, message
from fuzz.target import Attempt, Target
from support.configs import small
from support.tokenizers import NORMAL, UNUSED, USER_DEFINED, Piece, serialized
from support.toy_tokenizers import NAMES, toy_model

SPACE = "\u2581"
CONTROL, BYTE, UNKNOWN = 3, 6, 2
SAYS = "ab 新词 x\n1 <s> \u2581a é🙂"
ODD_NAMES = (*TEXTS[:30], "<think>", "<|im_start|>", "<x>", SPACE, f"a{SPACE}b", "a\nb", "<0x0A>", "<0x100>", "ab")
BYTES: list[Piece] = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
GROUP = b"\xf3\x01\xf4\x01"
"""A field of a kind that protobuf has given up: its library passes over it."""


def with_rules() -> bytes:
    """A model that changes characters before it cuts them."""
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("41\t61\nE9\t65 301\n")
        rules.flush()
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(["the quick brown fox, 1987", "你好世界，今天天气很好。"] * 20),
            model_writer=model,
            model_type="bpe",
            vocab_size=330,
            byte_fallback=True,
            normalization_rule_tsv=rules.name,
            minloglevel=2,
            num_threads=1,
        )
    return model.getvalue()


def unigram() -> bytes:
    """The model of `toy_model` as another algorithm reads it."""
    return toy_model() + bytes([0x12, 2, 0x18, 1])


def few(rng: Random) -> bytes:
    """A model of few pieces, some of them odd; any algorithm."""
    special: list[Piece] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces = special[: rng.choice((3, 3, 3, 3, 3, 2, 1, 0))]
    pieces += BYTES[: rng.choice((256, 256, 256, 256, 256, rng.randrange(256)))]
    for name in rng.sample(NAMES, rng.randrange(len(NAMES))):
        pieces.append((name, -float(len(pieces)), NORMAL))
    for _ in range(rng.randrange(4)):
        name = rng.choice(ODD_NAMES).encode(errors="replace").decode()
        score = rng.choice((0.0, -1.0, float("nan"), float("inf"), -1e38))
        kind = rng.choice((NORMAL, NORMAL, USER_DEFINED, USER_DEFINED, UNUSED, CONTROL, BYTE, UNKNOWN))
        pieces.insert(rng.randrange(len(pieces) + 1), (name[:40], score, kind))
    return serialized(pieces, rng.choice((2, 2, 2, 2, 1, 3, 4, 9)), rng.random() < 0.3)


def drawn(rng: Random, seeds: list[bytes]) -> bytes:
    match rng.randrange(12):
        case 0:
            return rng.choice((foreign(rng), foreign(rng) + seeds[0], b"", rng.randbytes(rng.randrange(80))))
        case 1 | 2 | 3 | 4:
            return few(rng)
        case 5 | 6:
            return damaged(rng, rng.choice(seeds), seeds)
        case 7:
            found = fields(rng.choice(seeds))
            rng.shuffle(found)
            return message(found[: rng.choice((len(found), rng.randrange(len(found) + 1)))])
        case 8 if rng.random() < 0.3:
            inside = rng.choice((b"\x12", b"\x1a", b"\x0a", b""))
            return rng.choice(seeds) + (inside + bytes([len(GROUP)]) + GROUP if inside else GROUP)
        case 9 if rng.random() < 0.2:
            return few(rng).replace("新".encode(), b"\xff\xfe\xfd")
        case 10 if rng.random() < 0.03:
            return seeds[0] + b"\x0a\x00" * rng.choice((MAX_MODEL_BYTES // 2, MOST_FIELDS, MOST_FIELDS))
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2))):
        data = changed_message(rng, data)
    return data


def start(scratch: Path) -> Attempt:
    seeds = [toy_model(), with_rules(), unigram()]
    config = small(model_type="ernie4_5", vocab_size=400)
    path = scratch / "tokenizer.model"

    def attempt(rng: Random) -> None:
        path.write_bytes(drawn(rng, seeds))
        if rng.random() < 0.3:
            tokenizer = Tokenizer.load(scratch, config)
            ids = tokenizer.encode(SAYS)
            assert not {*ids} & {*tokenizer.reserved.values()}, "text gives a reserved token"
            assert all(0 <= id < tokenizer.vocab_size for id in ids)
            tokenizer.decode(ids)
            return
        pieces = read_sentencepiece(path, {"ab"} if rng.random() < 0.5 else set())
        (ids,) = pieces.encode([SAYS])
        assert not {*ids} & pieces.reserved - {0}, "text gives a reserved token"
        read_merges(path)

    return attempt


TARGET = Target("tokenizer_model", ("ernie_rt.text.sentencepiece_model",), start, share=2_500)
