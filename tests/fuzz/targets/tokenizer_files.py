"""tokenizer.json, and what lies beside it or beside tokenizer.model: what they say of added and special tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from ernie_rt.text.tokenizer_json import MODEL, STEPS
from fuzz.mutations import TEXTS, Raw, changed, json_bytes, value
from fuzz.target import Attempt, Target
from support.configs import small
from support.toy_tokenizers import FIRST, FLAGS, NAMES, entry, stored_json, toy_model

Json = dict[str, Any]
CONTENTS = (
    "<x>",
    "[x]",
    "<think>",
    "</s>",
    "<|im_start|>",
    "ab",
    "1",
    "a b",
    "新",
    "\u2581a",
    "<0x0A>",
    "<mask:4>",
    *TEXTS,
)
ONE = 259 + NAMES.index("1")
"""Which tokenizer.model has as a piece that is always matched."""
IDS = (FIRST, FIRST + 1, FIRST + 2, 0, 1, 2, 13, 259, 260, 399, 400, -1, 2**31, True, "3", 2.0, None)
SAYS = "ab <x>[x] 新词 x\n1 <s> \u2581a é🙂 </s>abab"
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "split": False}
FORMS: dict[str, list[Json]] = {
    "normalizer": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}],
    "pre_tokenizer": [
        {"type": "Metaspace", "replacement": "_"}, {"type": "Split", "pattern": {"Regex": "."}},
        *(METASPACE | {"prepend_scheme": scheme} for scheme in ("first", "always", "never", "sometimes")),
        METASPACE | {"add_prefix_space": True}, METASPACE | {"prepend_scheme": 3},
    ],
    "decoder": [
        *({"type": "Strip", "content": " ", "start": start, "stop": 0} for start in (0, 1, 2, -1, "1", 10**30)),
        METASPACE | {"prepend_scheme": "never"}, METASPACE | {"prepend_scheme": "first"}, {"type": "WordPiece"},
    ],
}  # fmt: skip
"""Beside those that are known."""
PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
STORED = stored_json({FIRST: entry("<x>"), FIRST + 1: entry("[x]", lstrip=True)})
TOKENS = {name: {"content": token} for name, token in (("bos_token", "<s>"), ("eos_token", "</s>"))}
SETTINGS: Json = {
    **TOKENS, "tokenizer_class": "LlamaTokenizer", "legacy": True, "add_prefix_space": False,
    "additional_special_tokens": ["<x>", "[x]"], "extra_special_tokens": {"a": "<x>"},
    "added_tokens_decoder": {"0": entry("<unk>", special=True), str(FIRST): entry("<x>"), str(FIRST + 1): entry("[x]")},
}  # fmt: skip
MAPPED: Json = {"bos_token": "<s>", "eos_token": entry("</s>"), "additional_special_tokens": ["<x>", entry("[x]")]}
ADDED: Json = {"<x>": FIRST, "[x]": FIRST + 1}


def added_entry(rng: Random) -> Any:
    """What is said of an added token."""
    if rng.random() < 0.1:
        return value(rng)
    made: Json = entry(rng.choice(CONTENTS), **{flag: rng.random() < 0.4 for flag in FLAGS})
    if rng.random() < 0.2:
        made[rng.choice(("content", *FLAGS))] = value(rng)
    if rng.random() < 0.2:
        del made[rng.choice(FLAGS)]
    return made


def stored(rng: Random) -> Json:
    """tokenizer.json, with something else in one of its sections."""
    tree = copy.deepcopy(STORED)
    match rng.randrange(9):
        case 0:
            name = rng.choice(sorted(MODEL))
            tree["model"][name] = rng.choice((*MODEL[name], value(rng)))
        case 1 | 2:
            section = rng.choice(sorted(STEPS))
            forms = [*map(dict, STEPS[section] * 3), *FORMS[section], {"type": "Sequence", "normalizers": []}]
            steps: list[Any] = [dict(rng.choice(forms)) for _ in range(rng.randrange(4))]
            tree[section] = {"type": "Sequence", PARTS[section]: steps} if len(steps) != 1 else steps[0]
            if section == "normalizer":
                tree["pre_tokenizer"] = rng.choice((None, METASPACE, *FORMS["pre_tokenizer"]))
            if rng.random() < 0.1 and steps:
                steps[0][rng.choice(sorted(steps[0]))] = value(rng)
        case 8 if rng.random() < 0.3:
            tree["normalizer"] = rng.choice((None, dict(STEPS["normalizer"][1])))
        case 3:
            vocab = tree["model"]["vocab"]
            name = rng.choice(sorted(vocab))
            if rng.random() < 0.6:
                vocab[rng.choice(CONTENTS)] = rng.choice((vocab[name], value(rng), len(vocab), 399, 400, *IDS))
            else:
                del vocab[name]
        case 4:
            pieces = (*NAMES, "<0x0A>", "</s>", "\u2581ab", "xy")
            merges = [[rng.choice(pieces), rng.choice(pieces)], "a b", "ab c", "a", ["a"], ["新", "词"], value(rng)]
            tree["model"]["merges"] = rng.sample(merges, rng.randrange(4)) if rng.random() < 0.9 else value(rng)
        case 5 | 6:
            for _ in range(rng.choice((1, 2, 3, 30))):
                made = added_entry(rng)
                if isinstance(made, dict):
                    made["id"] = rng.choice(IDS)
                    if rng.random() < 0.2:
                        made |= {"content": "1", "id": ONE}
                tree["added_tokens"].append(made)
        case 7 if rng.random() < 0.3:
            tree["model"] = rng.choice((value(rng), {}, None))
        case 7:
            tree["model"]["unk_token"] = rng.choice((*NAMES, "<s>", "<0x00>", None, value(rng)))
        case _:
            return changed(rng, tree, rng.choice((1, 1, 2)))  # type: ignore[no-any-return]
    return tree


def settings(rng: Random) -> Json:
    tree = copy.deepcopy(SETTINGS)
    match rng.randrange(5):
        case 0 | 1:
            decoder = tree["added_tokens_decoder"]
            for _ in range(rng.choice((1, 2, 3, 30))):
                key = rng.choice((*map(str, IDS), "07", "١", "x", "9" * 9, "1" * 10))
                decoder[key] = added_entry(rng)
            if rng.random() < 0.2:
                tree["added_tokens_decoder"] = {str(ONE): entry("1", single_word=True)}
            if rng.random() < 0.1:
                tree["added_tokens_decoder"] = value(rng)
        case 2:
            name = rng.choice(
                ("legacy", "add_prefix_space", "tokenizer_class", "additional_special_tokens", "sep_token")
            )
            tree[name] = rng.choice((value(rng), True, False, rng.choice(CONTENTS), [added_entry(rng)]))
        case 3:
            tree = changed(rng, tree, 2)
        case _:
            del tree["added_tokens_decoder"]
    return tree


def mapped(rng: Random) -> Json:
    tree = copy.deepcopy(MAPPED)
    name = rng.choice((*tree, "mask_token", "x_tokens", "x"))
    tree[name] = rng.choice(
        (value(rng), rng.choice(CONTENTS), added_entry(rng), [added_entry(rng), rng.choice(CONTENTS)])
    )
    return tree


def added(rng: Random) -> Json:
    tree: Json = dict(ADDED)
    for _ in range(rng.choice((1, 1, 2, 30))):
        tree[rng.choice(CONTENTS)] = rng.choice((*IDS, value(rng)))
    if rng.random() < 0.2:
        tree["<x>"] = Raw(f'{FIRST}, "<x>": {rng.choice((FIRST, 3))}')
    return tree


FILES: dict[str, tuple[Json, Callable[[Random], Json]]] = {
    "tokenizer.json": (STORED, stored),
    "tokenizer_config.json": (SETTINGS, settings),
    "special_tokens_map.json": (MAPPED, mapped),
    "added_tokens.json": (ADDED, added),
}


def start(scratch: Path) -> Attempt:
    config, short = (small(model_type="ernie4_5", vocab_size=size) for size in (400, 270))
    model = toy_model()

    def attempt(rng: Random) -> None:
        with_json = rng.random() < 0.6
        (scratch / "tokenizer.model").unlink(missing_ok=True)
        if not with_json or rng.random() < 0.3:
            (scratch / "tokenizer.model").write_bytes(model)
        broken = {rng.choice(sorted(FILES)) for _ in range(rng.choice((1, 1, 2)))}
        for name, (good, draw) in FILES.items():
            (scratch / name).unlink(missing_ok=True)
            if name == "tokenizer.json" and not with_json:
                continue
            if name in broken:
                (scratch / name).write_bytes(json_bytes(rng, draw(rng)))
            elif name == "tokenizer.json" or rng.random() < 0.5:
                (scratch / name).write_bytes(json_bytes(rng, good))
        use(Tokenizer.load(scratch, short if rng.random() < 0.06 else config))

    return attempt


def use(tokenizer: Tokenizer) -> None:
    """Text there and back, whole and piece by piece."""
    ids = tokenizer.encode(SAYS)
    assert not {*ids} & {*tokenizer.reserved.values()}, "text gives a reserved token"
    assert all(0 <= id < tokenizer.vocab_size for id in ids), "an id that there is not"
    text = tokenizer.decode(ids)
    streamed = Detokenizer(tokenizer)
    assert "".join([*map(streamed.push, ids), streamed.flush()]) == text, "a stream that is not the whole"
    for token in list(tokenizer.reserved)[:8]:
        assert list(tokenizer.find_special(token))
        tokenizer.encode_special(token)


TARGET = Target(
    "tokenizer_files",
    (
        "ernie_rt.text.vocabulary",
        "ernie_rt.text.added_files",
        "ernie_rt.text.tokenizer_json",
        "ernie_rt.text.added_tokens",
    ),
    start,
    share=1_500,
    excused={
        'not a usable tokenizer"': "what the package refuses is refused before; this is for what a later one may",
        "which is not installed": "the package `tokenizers` is installed",
        "there is no tokenizer": "the folder has one always; tests/text/test_tokenizer.py asks one without",
    },
)
