"""Baidu's own tokenizer files, by program: their bytes from what they say, and a model to go with them.

The files of the text models (0.3B, 21B, 300B) are rebuilt to the SHA-256 that their repositories publish. The model,
tokenizer.model, is not to be had: `text_model` has the pieces that are known, at their ids, and merges that lead to
them; so have the files of 21B-A3B-Thinking, whose published renderings are in tests/data.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from support.tokenizers import NORMAL, USER_DEFINED, Piece, serialized

SHA256: Final = {
    "added_tokens.json": "08ab98258652553a53455b164c258488ce840322f0949877676d962a1d958cad",
    "special_tokens_map.json": "d96a4630d4a8bbddabc3e1ad272a0e6a42f37a515239c8d25626d09154d7603b",
    "tokenizer_config.json": "e9bc80502f0e997cc36b4d1f2bd025a3ca549a108736f7a1cef014229db0a82d",
}
"""Of baidu/ERNIE-4.5-0.3B-PT at b565cf6c, 21B-A3B-PT at 87db9548 and 300B-A47B-PT at 47bbaf1c."""
LISTED: Final = [
    "<|IMAGE_PLACEHOLDER|>", "<|AUDIO_PLACEHOLDER|>", *(f"<|LOC_{n}|>" for n in range(1001)),
    "<|LOC_BEGIN|>", "<|LOC_END|>", "<|LOC_SEP|>", "<|CROP_COL_SEP|>", "<|CROP_ROW_SEP|>", "<|IMAGE_SEP|>",
]  # fmt: skip
ADDED: Final = {name: 100295 + place for place, name in enumerate(LISTED)}
MASKS: Final = {f"<mask:{n}>": 100273 + n for n in (4, 5, 6, 7)}
TEXT_CONTROLS: Final = {"<|end_of_sentence|>": 100272, "<|begin_of_sentence|>": 100273, "<mask:1>": 100274}
DIGITS: Final = {str(n): 3 + n for n in range(10)}
THINKING: Final = {
    "<think>": 100281, "</think>": 100282, "<tool_output>": 100295, "</tool_output>": 100296, "<tool_call>": 100297,
    "</tool_call>": 100298, "<response>": 100299, "</response>": 100300, "<system_setting>": 100301,
    "</system_setting>": 100302, "<global_setting>": 100303, "</global_setting>": 100304, "<tool_list>": 100305,
    "</tool_list>": 100306, "<|im_start|>": 100307, "<|im_end|>": 100308,
}  # fmt: skip
"""The tokens of 21B-A3B-Thinking, which has its own from 100295 on."""
JOINTS: Final = {"in": 275, "en": 276, "ic": 277, "\u2581H": 415}
"""Pieces that have to be merged before others; their ids are not known."""
PIECES: Final = 100_295
"""So many has tokenizer.model; the added tokens follow."""
ROWS: Final = 103_424
DATA: Final = Path(__file__).parent.parent / "data" / "ernie45"
NAMED: Final = {
    "bos_token": "<s>", "cls_token": "<|begin_of_sentence|>", "eos_token": "</s>", "mask_token": "<mask:1>",
    "pad_token": "<unk>", "sep_token": "<|end_of_sentence|>", "unk_token": "<unk>",
}  # fmt: skip


def text_files() -> dict[str, str]:
    """The contents of the three files that lie beside tokenizer.model, by their names."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = [*ADDED, *MASKS]
    listed = {"<unk>": 0, "<s>": 1, "</s>": 2} | DIGITS | TEXT_CONTROLS | MASKS | ADDED
    decoder = {id: {"content": name, **flags, "special": name not in DIGITS} for name, id in listed.items()}
    settings: dict[str, Any] = {
        "add_bos_token": False, "add_eos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": special, **NAMED, "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {}, "legacy": True, "model_max_length": 131072, "sp_model_kwargs": {},
        "spaces_between_special_tokens": False, "tokenizer_class": "LlamaTokenizer", "use_default_system_prompt": False,
    }  # fmt: skip
    named = {key: {"content": name, **flags} for key, name in NAMED.items()}
    contents = {
        "added_tokens.json": ADDED,
        "special_tokens_map.json": {"additional_special_tokens": special, **named},
        "tokenizer_config.json": settings,
    }
    return {name: json.dumps(value, indent=2, sort_keys=True) + "\n" for name, value in contents.items()}


def write_text_tokenizer(folder: Path) -> Path:
    """Put the tokenizer files of a text model into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model())
    for name, text in text_files().items():
        (folder / name).write_text(text)
    return folder


@cache
def model(thinking: bool = False, dummy_prefix: bool = False) -> bytes:
    """A tokenizer.model with the known pieces at their ids; the rest of its ids are characters of no text.

    A known piece of several characters is reached by merges from its beginning: each beginning is a piece with an id
    shortly before.
    """
    names: dict[int, Piece] = {
        0: ("<unk>", 0.0, 2), 1: ("<s>", 0.0, 3), 2: ("</s>", 0.0, 3),
        **{id: (name, 0.0, USER_DEFINED) for name, id in DIGITS.items()},
        **{13 + byte: (f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)},
        **{id: (name, 0.0, USER_DEFINED) for name, id in (TEXT_CONTROLS | MASKS).items()},
    }  # fmt: skip
    if thinking:
        names |= {id: (name, 0.0, USER_DEFINED) for name, id in THINKING.items() if id < PIECES}
    known: dict[str, int] = json.loads((DATA / "pieces.json").read_text()) | JOINTS
    names |= {id: (name, 0.0, NORMAL) for name, id in known.items()}
    ids = dict(known)
    free = PIECES - 1
    for character in sorted({character for name in known for character in name} - {*known, *DIGITS}):
        while free in names:
            free -= 1
        names[free] = (character, 0.0, NORMAL)
        ids[character] = free
    for name, id in sorted(known.items(), key=lambda item: item[1]):
        for length in range(len(name) - 1, 1, -1):
            if name[:length] not in ids and not (name[:length] == "\u2581i" and name[1:] in ids):
                while id in names:
                    id -= 1
                names[id] = (name[:length], 0.0, NORMAL)
                ids[name[:length]] = id
    fill = (names.get(id, (chr(0xF0000 + id), 0.0, NORMAL)) for id in range(PIECES))
    pieces = ((name, -float(id) if kind == NORMAL else 0.0, kind) for id, (name, _, kind) in enumerate(fill))
    return serialized(pieces, dummy_prefix=dummy_prefix)
