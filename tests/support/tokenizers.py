"""Tokenizer files like ERNIE's: a byte-fallback BPE with digits apart, its control pieces, and added tokens."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import textwrap
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.text.tokenizer import Tokenizer

ROWS = 103_424
CONTROLS = ["<|begin_of_sentence|>", "<|end_of_sentence|>", "<mask:1>", "<|im_start|>", "<|im_end|>"]
MATCHED = ["<mask:4>", "<mask:5>", "<mask:6>", "<mask:7>"]
"""User-defined in the model: by itself SentencePiece would take them out of any text."""
VISIBLE = ["<think>", "</think>", "<response>", "</response>", "<tool_call>", "</tool_call>"]
"""Added tokens that tokenizer_config.json lists as not special."""
ADDED = {
    "<|IMAGE_PLACEHOLDER|>": 100295,
    "<|AUDIO_PLACEHOLDER|>": 100296,
    **{f"<|LOC_{n}|>": 100297 + n for n in range(1001)},
    **{f"<|{name}|>": 101298 + n for n, name in enumerate(
        ["LOC_BEGIN", "LOC_END", "LOC_SEP", "CROP_COL_SEP", "CROP_ROW_SEP", "IMAGE_SEP",
         "IMAGE_START", "IMAGE_END", "VIDEO_START", "VIDEO_END"])},
}  # fmt: skip
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "was",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "or",
    "had",
    "by",
    "hot",
    "but",
    "some",
    "what",
    "there",
    "we",
    "can",
    "out",
    "other",
    "were",
    "all",
    "your",
    "when",
    "up",
    "use",
    "word",
    "how",
    "said",
    "an",
    "each",
    "she",
    "which",
    "do",
    "their",
    "time",
    "if",
    "will",
    "way",
    "about",
    "many",
    "then",
    "them",
    "would",
    "write",
    "like",
    "so",
    "these",
    "her",
    "long",
    "make",
    "thing",
    "see",
    "him",
    "two",
    "has",
    "look",
    "more",
    "day",
    "could",
    "go",
    "come",
    "did",
    "my",
    "sound",
    "no",
    "most",
    "number",
    "who",
    "over",
    "know",
    "water",
    "than",
    "call",
    "first",
    "people",
    "may",
    "down",
    "side",
    "been",
    "now",
    "find",
    "any",
    "new",
    "work",
    "part",
    "take",
    "get",
    "place",
    "made",
    "live",
    "where",
    "after",
    "back",
    "little",
    "only",
    "round",
    "man",
    "year",
    "came",
    "show",
    "every",
    "good",
    "me",
    "give",
    "our",
    "under",
    "name",
    "very",
    "through",
    "just",
    "form",
    "much",
    "great",
    "think",
    "say",
    "help",
    "low",
    "line",
    "before",
    "turn",
    "cause",
    "same",
    "mean",
    "differ",
    "move",
    "right",
    "boy",
    "old",
    "too",
    "does",
    "tell",
    "sentence",
    "def",
    "return",
    "import",
    "class",
    "self",
    "print",
    "yield",
    "lambda",
    "None",
    "True",
    "False",
    "hello",
    "world",
    "quick",
    "brown",
    "fox",
    "jumps",
    "lazy",
    "dog",
]
HANZI = (
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里"
    "所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从"
    "知使"
)
CHINESE = [
    "你好世界，今天天气很好。",
    "我们去公园散步吧！",
    "人工智能可以帮助人们学习。",
    "请问这个问题怎么解决？",
    "模型的输出是：",
]


Piece = tuple[str, float, int]
"""Name, score and type."""
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5


def serialized(pieces: Iterable[Piece], algorithm: int = 2, dummy_prefix: bool = False) -> bytes:
    """A tokenizer.model of these pieces, byte-pair encoding unless another algorithm is asked for."""
    entries = (
        _message(0x0A, _message(0x0A, name.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))
        for name, score, kind in pieces
    )
    trainer = _message(0x12, bytes([0x18, algorithm, 0x98, 0x02, 1]))  # model_type and byte_fallback
    return b"".join([*entries, trainer, _message(0x1A, bytes([0x18, dummy_prefix]))])


def _message(tag: int, data: bytes) -> bytes:
    size = len(data)
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + data


@functools.cache
def ernie_model(pieces: int = 4000) -> bytes:
    """A serialized model trained on a few hundred kilobytes that a fixed seed writes."""
    rng = random.Random(7)
    lines = []
    for _ in range(2500):
        # Words beyond the list, so that there are enough merges to learn.
        words = [rng.choice(WORDS) + rng.choice(["", "", "ing", "ly", "er", "ed", "ness"]) for _ in range(12)]
        lines.append(" ".join(words) + rng.choice([".", ", 1987", "  two  spaces", "()"]))
        hanzi = "".join(rng.choice(HANZI) for _ in range(16))
        lines.append(rng.choice(CHINESE) + hanzi + "，" + rng.choice(CHINESE))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        control_symbols=CONTROLS,
        user_defined_symbols=MATCHED,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def write_ernie_tokenizer(folder: Path, template: str | None = None, flags: bool = True, visible: int = 101400) -> Path:
    """Put the four files of an ERNIE tokenizer in `folder`; `flags` adds added_tokens_decoder, with VISIBLE in it.

    The ids of those begin at `visible`.
    """
    added = ADDED | {name: visible + n for n, name in enumerate(VISIBLE)}
    (folder / "tokenizer.model").write_bytes(ernie_model())
    (folder / "added_tokens.json").write_text(json.dumps(added))
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "cls_token": "<|begin_of_sentence|>",
        "sep_token": "<|end_of_sentence|>",
        "mask_token": "<mask:1>",
        "additional_special_tokens": [*MATCHED, *ADDED],
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    settings: dict[str, object] = {**named, "tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    settings |= {"add_bos_token": False, "add_eos_token": False, "legacy": True}
    if flags:
        listed = added | {name: id for id, name in enumerate(["<unk>", "<s>", "</s>", *CONTROLS, *MATCHED])}
        settings["added_tokens_decoder"] = {
            str(id): {"content": name, "special": name not in VISIBLE} for name, id in listed.items()
        }
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ernie_config() -> ModelConfig:
    return parse_config({"model_type": "ernie4_5", "vocab_size": ROWS, "eos_token_id": 2}, "config.json")


def ernie_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(write_ernie_tokenizer(folder), ernie_config())


def mixed_text(rng: random.Random, size: int) -> str:
    """English, Chinese, emoji, digits, white space, controls written as text and bytes that were no UTF-8."""
    specials = [*CONTROLS, *MATCHED, *VISIBLE, *ADDED, "<s>", "</s>", "<unk>", "<0x0A>"]
    parts = []
    for _ in range(size):
        kind = rng.randrange(9)
        if kind == 0:
            parts.append(rng.choice(["", " ", "  "]) + rng.choice(WORDS))
        elif kind == 1:
            parts.append("".join(rng.choice(HANZI) for _ in range(rng.randrange(1, 6))))
        elif kind == 2:
            parts.append(rng.choice(CHINESE))
        elif kind == 3:
            parts.append(rng.choice(["🙂", "👩‍👩‍👧", "🇨🇳", "é", "e\u0301", "ภาษา", "龘", "☃️", "\u200d"]))
        elif kind == 4:
            parts.append(str(rng.randrange(10**6)))
        elif kind == 5:
            parts.append(rng.choice(["\n", "\n\n", "\t", "\r\n", "   ", " \n ", "\u3000", "\xa0"]))
        elif kind == 6:
            parts.append(rng.choice(specials))
        elif kind == 7:
            parts.append(rng.randbytes(rng.randrange(1, 8)).decode("utf-8", "replace"))
        else:
            parts.append(rng.choice([".", ",", "?!", "<", ">", "<|", "|>", "{}", "'\"", "=="]))
    return "".join(parts)


def prose(size: int) -> str:
    """Mixed text for timing: paragraphs of words and Chinese, with digits and code."""
    rng = random.Random(3)
    paragraphs = []
    length = 0
    while length < size:
        words = " ".join(rng.choice(WORDS) for _ in range(80))
        hanzi = "".join(rng.choice(CHINESE) + rng.choice(HANZI) for _ in range(6))
        paragraphs.append(f"{textwrap.fill(words, 100)}\n{hanzi}\n    x = {rng.randrange(10**9)}  # 🙂\n")
        length += len(paragraphs[-1].encode())
    return "".join(paragraphs)
