"""Conversations, through the templates that are ERNIE's own: whatever a text says, it is no token of the template."""

from __future__ import annotations

from pathlib import Path
from random import Random

from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.native import NATIVE
from ernie_rt.text.spans import encode_spans
from fuzz import talks
from fuzz.target import Attempt, Target


def start(scratch: Path) -> Attempt:
    tokenizer = talks.toy_tokenizer(scratch)
    special = {*tokenizer.reserved.values()}
    templates = [ChatTemplate("", {}, "x", kind) for kind in NATIVE]

    def attempt(rng: Random) -> None:
        template, asked, tools = rng.choice(templates), talks.messages(rng), talks.tools(rng)
        thinking, asks = rng.choice((None, None, None, True, False, 1)), rng.random() < 0.7
        spans = template.spans(asked, tokenizer, tools, asks, thinking)
        asked_plainly, with_tools = talks.without_tokens(asked), talks.without_tokens(tools)
        plain = template.spans(asked_plainly, tokenizer, with_tools, asks, thinking)
        tokens, of_template = ([id for id in encode_spans(each, tokenizer) if id in special] for each in (spans, plain))
        assert tokens == of_template, "a text has forged a token"
        template.prompt(asked, tokenizer, tools, thinking=thinking)

    return attempt


TARGET = Target(
    "messages",
    ("ernie_rt.text.messages", "ernie_rt.text.native", "ernie_rt.text.media"),
    start,
    share=4_000,
)
