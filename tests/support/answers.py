"""Answers in pieces: the same parts, split in any way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, get_args

import msgspec
from hypothesis import strategies as st
from pydantic import BaseModel

from ernie_rt import Piece, ToolCall

CALL = '<tool_call>\n{"name": "look_up", "arguments": {"what": "猫"}}\n</tool_call>'
Part = tuple[Literal["reasoning", "text", "call"], str]
"""Reasoning or text; or a call of a tool, by its argument."""


def splits() -> st.SearchStrategy[tuple[list[Part], list[int], str]]:
    """The parts of an answer, where to cut each, and how the answer ends."""
    parts = st.lists(
        st.tuples(
            st.sampled_from(["reasoning", "text", "call"]),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        ),
        max_size=6,
    )
    return st.tuples(parts, st.lists(st.integers(1, 4), min_size=1), st.sampled_from(["stop", "length"]))


def whole(parts: Sequence[Part], finish: str | None) -> list[Piece]:
    """A piece a part."""
    return split(parts, [1 << 30], finish)


def split(parts: Sequence[Part], cuts: Sequence[int], finish: str | None) -> list[Piece]:
    """Parts in pieces of so many characters, in turns; what ends the answer may come by itself, or with its last."""
    pieces = list(_pieces(parts, cuts))
    if finish is None:
        return pieces
    if pieces and cuts[0] % 2:
        return [*pieces[:-1], replace(pieces[-1], finish=finish)]
    return [*pieces, Piece(2, "", finish)]  # type: ignore[arg-type]


def _pieces(parts: Sequence[Part], cuts: Sequence[int]) -> Iterator[Piece]:
    turn = 0
    for kind, text in parts:
        if kind == "call":
            yield Piece(1, "", None, tool_calls=(ToolCall("look_up", {"what": text, "n": 10**30}),))
        while kind != "call" and text:
            size = cuts[turn % len(cuts)]
            turn += 1
            if size == 3:
                yield Piece(1, "", None)  # a token that shows nothing yet
            yield Piece(1, text[:size], None) if kind == "text" else Piece(1, "", None, reasoning=text[:size])
            text = text[size:]


def check_events(events: Iterable[dict[str, Any]], union: Any) -> None:
    """Whether each event is what a client takes it for, as it comes over the wire."""
    types = _types(union)
    for event in events:
        types[event["type"]].model_validate(json.loads(msgspec.json.encode(event)))


@cache
def _types(union: Any) -> dict[str, type[BaseModel]]:
    (models, *_) = get_args(union)
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(models)}
