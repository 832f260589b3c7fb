"""Conversations at random, and a tokenizer that has the tokens of ERNIE's templates."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.modeling.config import parse_config
from ernie_rt.text.media import Media
from ernie_rt.text.pieces import CONTROLS
from ernie_rt.text.tokenizer import Tokenizer
from fuzz.mutations import TEXTS, dumped, value
from support.configs import DENSE
from support.toy_tokenizers import FIRST, entry, stored_json

ROLES = ("system", "user", "assistant", "tool")
SPECIAL = tuple(sorted(CONTROLS))
SAYS = (
    "hello", "a\nb", " x ", "</think>", "<think>\nno\n</think>", "User: ", "{{ messages }}", '{"a": "b\\n"}', "汉字🙂",
    *SPECIAL, "<|image@placeholder|>", "<|video@placeholder|>", *(f"a{token}b" for token in SPECIAL[:6]),
)  # fmt: skip


def toy_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer of few pieces, with the tokens of ERNIE's templates."""
    tokens = {FIRST + n: entry(name, special=True) for n, name in enumerate((*SPECIAL, "<|image@placeholder|>"))}
    (folder / "tokenizer.json").write_text(dumped(stored_json(tokens)))
    return Tokenizer.load(folder, parse_config({**DENSE, "vocab_size": 400}, "config.json"))


def text(rng: Random) -> str:
    return "".join(
        rng.choice(SAYS) if rng.random() < 0.8 else rng.choice(TEXTS) for _ in range(rng.choice((1, 1, 2, 3)))
    )


def plain_messages(rng: Random) -> list[dict[str, Any]]:
    """A conversation that every template has a place for, though what it says may be hostile."""
    asked = [{"role": "system", "content": rng.choice(SAYS)}] if rng.random() < 0.3 else []
    for _ in range(rng.choice((0, 0, 1, 2))):
        asked += [{"role": "user", "content": rng.choice(SAYS)}, {"role": "assistant", "content": rng.choice(SAYS)}]
    return [*asked, {"role": "user", "content": rng.choice(SAYS)}]


def part(rng: Random) -> Any:
    """A part of a content."""
    kind = rng.choice(("text", "text", "image", "video", "image_url", 3, None))
    made: dict[Any, Any] = {
        "type": kind,
        kind: text(rng) if kind == "text" else rng.choice((b"x", b"x", "http://x", 3)),
    }
    if rng.random() < 0.5:
        field = rng.choice(("max_pixels", "fps", "max_frames", "x", "text"))
        made[field] = rng.choice((1, 2, 0.5, 0, -1, 10**30, True, value(rng, 1)))
    return rng.choice((made, made, made, text(rng), Media("image", b"x"), value(rng, 1)))


def content(rng: Random) -> Any:
    match rng.randrange(10):
        case 0 | 9:
            return [part(rng) for _ in range(rng.randrange(4))]
        case 1 if rng.random() < 0.5:
            return value(rng, 1)
        case 2 if rng.random() < 0.3:
            return None
    return text(rng)


def call(rng: Random) -> Any:
    arguments = rng.choice(
        ({"a": text(rng)}, '{"a": [1, "b"]}', {}, "", {"a": b"x"}, {(1,): 2}, value(rng, 1), dumped({"a": value(rng)}))
    )
    function = {"name": rng.choice(("look_up", text(rng), value(rng, 1))), "arguments": arguments}
    made: Any = rng.choice((function, {"type": "function", "function": function}, {"function": function, "id": "1"}))
    return made if rng.random() < 0.95 else value(rng, 1)


def message(rng: Random) -> Any:
    role = rng.choice((*ROLES, "user", "user")) if rng.random() < 0.97 else rng.choice((*TEXTS, None, 3))
    made: dict[str, Any] = {"role": role, "content": content(rng)}
    if role == "assistant":
        if rng.random() < 0.3:
            made["reasoning" if rng.random() < 0.5 else "reasoning_content"] = rng.choice((text(rng), value(rng, 1)))
        if rng.random() < 0.3:
            made["tool_calls"] = (
                [call(rng) for _ in range(rng.randrange(1, 3))] if rng.random() < 0.9 else value(rng, 1)
            )
            made["content"] = rng.choice((None, "", made["content"]))
    if role == "tool" and rng.random() < 0.5:
        made[rng.choice(("name", "tool_call_id"))] = rng.choice((text(rng), value(rng, 1)))
    if rng.random() < 0.03:
        made[rng.choice(list(made))] = value(rng, 1)
    return made if rng.random() < 0.98 else value(rng, 1)


def messages(rng: Random) -> Any:
    """A conversation; now and then it is none."""
    if rng.random() < 0.02:
        return rng.choice((value(rng, 1), "hello", {"role": "user", "content": "x"}, []))
    return [message(rng) for _ in range(rng.choice((1, 1, 2, 3, 5)))]


def tools(rng: Random) -> Any:
    if rng.random() < 0.7:
        return rng.choice((None, (), []))
    if rng.random() < 0.1:
        return value(rng, 1)
    schema = {"type": "function", "function": {"name": text(rng), "parameters": {"a": text(rng)}}}
    return [
        rng.choice((schema, schema, {text(rng): 1}, {"type": rng.choice(SPECIAL)}, value(rng, 1)))
        for _ in range(rng.randrange(3))
    ]


def without_tokens(tree: Any) -> Any:
    """The same where no text has anything that a template's own text may have."""
    if isinstance(tree, str):
        for token in (*SPECIAL, "<|image@placeholder|>", "<|video@placeholder|>"):
            tree = tree.replace(token, "zz")
        return tree
    if isinstance(tree, dict):
        return {key: without_tokens(each) for key, each in tree.items()}
    return [without_tokens(each) for each in tree] if isinstance(tree, list) else tree
