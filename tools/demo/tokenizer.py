"""The demo's tokenizer: SentencePiece byte-pair merges learned from the curriculum, in the files of ERNIE's own."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import sentencepiece

from demo.curriculum import LANGUAGES, draw
from demo.surface import written
from demo.tasks import TASKS
from demo.words import DICTIONARY, SPELLING
from ernie_rt.writing import write_atomic

PIECES: Final = 4000
MAX_LETTERS: Final = 3
"""A piece has at most so many characters, a space in front among them: few enough pieces that each one's spelling is
met often."""
CONTROLS: Final = ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<mask:1>")
MASKS: Final = ("<mask:4>", "<mask:5>", "<mask:6>", "<mask:7>")
ADDED: Final = ("<|IMAGE_PLACEHOLDER|>", "<|AUDIO_PLACEHOLDER|>")
"""The first of the thousand tokens that ERNIE adds behind its pieces: a text model has no use for the others."""
ROWS: Final = 4032
"""Rows of the embedding: more than there are ids, as with ERNIE's 103,424."""
SAMPLES: Final = 700
"""Items of each task and language to learn merges from."""

COMMON_HANZI: Final = (
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家"
    "十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从知使因由些现她通动"
)
"""Characters of everyday text beyond the curriculum's, so that what people type is not all bytes."""

SAID: Final = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<unk>",
    "cls_token": "<|begin_of_sentence|>",
    "sep_token": "<|end_of_sentence|>",
    "mask_token": "<mask:1>",
}
TEMPLATE: Final = Path(__file__).with_name("chat_template.jinja")
"""ERNIE 4.5's plain chat template, letter for letter."""


def _lines() -> Iterator[str]:
    rng = random.Random(45)
    for _ in range(SAMPLES):
        for task in TASKS:
            for language in LANGUAGES:
                item = written(rng, draw(rng, task, language, "train"))
                yield from f"User: {item.prompt}\nAssistant: {item.answer}".split("\n")  # a newline stays a byte
    for word in SPELLING:
        yield from [word, f" {word}"] * 10
    for _, chinese in DICTIONARY:
        yield from [chinese] * 10
    yield from COMMON_HANZI
    yield from "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;?!()[]{}'\"-+=*/<>%&@#~_|$`×÷−“”‘’「」→"
    yield from "，。？！、；：（）《》【】『』…＋－＝＊／０１２３４５６７８９"


def train_tokenizer(lines: Iterable[str], pieces: int, max_letters: int) -> bytes:
    """A serialized SentencePiece model: the same bytes every time. A piece has at most `max_letters` characters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        max_sentencepiece_length=max_letters,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        control_symbols=list(CONTROLS),
        user_defined_symbols=list(MASKS),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_tokenizer(folder: Path) -> None:
    """Write the demo's tokenizer."""
    write_files(folder, train_tokenizer(_lines(), PIECES, MAX_LETTERS), PIECES, ADDED, TEMPLATE)


def write_files(folder: Path, model: bytes, pieces: int, tokens: Sequence[str], template: Path) -> None:
    """Write tokenizer.model and the three files of settings that lie beside ERNIE's; `tokens` follow the pieces."""
    added = {token: pieces + number for number, token in enumerate(tokens)}
    special_tokens = {**SAID, "additional_special_tokens": [*MASKS, *tokens]}
    settings = {
        **special_tokens,
        "sys_start_token": MASKS[0],
        "sys_end_token": MASKS[1],
        "header_start_token": MASKS[2],
        "header_end_token": MASKS[3],
        "tokenizer_class": "LlamaTokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False,
        "legacy": True,
        "padding_side": "left",
        "chat_template": template.read_text(),
    }
    texts = {
        "added_tokens.json": added,
        "special_tokens_map.json": special_tokens,
        "tokenizer_config.json": settings,
    }
    contents = {
        name: (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode() for name, value in texts.items()
    }
    for name, data in {"tokenizer.model": model, **contents}.items():
        with write_atomic(folder / name) as file:
            file.write(data)
