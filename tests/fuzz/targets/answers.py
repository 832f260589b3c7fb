"""Answers as they come: ids to text, stop strings, reasoning, tool calls. What comes out depends on no split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.location import locate
from ernie_rt.text.messages import Message, message_context, parse_messages
from ernie_rt.text.parsers import ANSWER_TAGS, OutputParser, Part
from ernie_rt.text.stops import StopMatcher, TextStream, check_stops
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from ernie_rt.text.tool_calls import read_calls
from fuzz.mutations import TEXTS, changed, damaged, dumped, value
from fuzz.target import Attempt, Target
from support.toy_tokenizers import write_toy

CALL: Final[dict[str, Any]] = {"name": "look_up", "arguments": {"what": "上 </think> <x>", "n": 1}}
WORDS: Final = (
    *ANSWER_TAGS, "<", ">", "</", "\n", " ", "a", "你", "é", "{}", '"', "\\", "\\\\", '{"a": "', "<tool", "think>",
    "[", "]", ",", json.dumps(CALL, ensure_ascii=False), '{"name": "f", "arguments": "{}"}',
    '{"name": "w", "arguments": {"t": "</tool_call> \\"<tool_call>\\\\"}}', "'", "\r", "\0", "{", "}",
)  # fmt: skip
CALLS: Final[tuple[Any, ...]] = (
    CALL, [CALL], {"function": CALL}, {"name": "f"}, {"name": "f", "parameters": {"a": 1}},
    {"name": "f", "arguments": '{"a": "b\nc"}'}, {"name": "f", "arguments": {"a": 1}, "parameters": {"a": 2}},
    {"name": "f", "arguments": {}, "x": 1}, {"name": "f", "arguments": []}, {"name": ""}, [], [[]], 1, "x", None,
)  # fmt: skip


def start(folder: Path) -> Attempt:
    tokenizers = [locate("demo").tokenizer, *(write_toy(folder / str(n), add_prefix_space=bool(n)) for n in range(2))]
    asked: list[Callable[[Random], object]] = [
        lambda rng: decode(rng, rng.choice(tokenizers)),
        stop,
        parse,
        parse,
        call,
        call,
        lambda rng: check_stops(impossible(rng)),
    ]

    def attempt(rng: Random) -> None:
        rng.choice(asked)(rng)

    return attempt


def decode(rng: Random, tokenizer: Tokenizer) -> None:
    """Ids one by one, as text up to a stop string."""
    known = len(tokenizer.pieces)
    ids = [rng.randrange(rng.choice((known, min(known, 300)))) for _ in range(rng.randrange(1, 40))]
    if rng.random() < 0.03:
        ids.insert(rng.randrange(len(ids)), rng.choice((-1, known, 2**40)))
    whole = tokenizer.decode(ids)
    detokenizer = Detokenizer(tokenizer)
    for _ in range(2):  # it starts anew after a flush
        assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == whole
    unseen = set(rng.sample(ids, rng.randrange(3))) if len(ids) > 3 else set()
    seen = tokenizer.decode(id for id in ids if id not in unseen)
    stops = some_of(seen, rng)
    stream, shown, ahead = TextStream(tokenizer, stops, unseen), "", 0
    for id in ids:
        ahead += 1
        if stream.push(id):
            break
        while ahead and rng.random() < 0.7:  # an engine may be ahead of who reads
            shown += stream.take()
            ahead -= 1
    shown += "".join(stream.take() for _ in range(ahead)) + stream.flush()
    assert (shown, stream.stopped) == up_to(seen, stops)


def stop(rng: Random) -> None:
    letters = rng.choice(("ab", "abé师", "ab\n"))
    text = "".join(rng.choices(letters, k=rng.randrange(60)))
    stops = check_stops(
        [*some_of(text, rng), *("".join(rng.choices(letters, k=n)) for n in (1, 5, 9)[: rng.randrange(4)])]
    )
    matcher, shown = StopMatcher(stops), ""
    for piece in cut(text, rng):
        shown += matcher.push(piece)
    assert (shown + matcher.flush(), matcher.stopped) == up_to(text, stops)


def parse(rng: Random) -> None:
    text, thinking = "".join(rng.choices(WORDS, k=rng.randrange(16))), rng.random() < 0.5
    whole = merged(parts(OutputParser(thinking), [text]))
    assert merged(parts(OutputParser(thinking), cut(text, rng, rng.choice((2, 12, 40))))) == whole
    written = whole if not any(part.call for part in whole) else [part for part in whole if part.kind != "tool_call"]
    for letter in "你é":  # in no tag
        assert sum(part.text.count(letter) for part in written) <= text.count(letter)
    calls = tuple(part.call for part in whole if part.call is not None)
    again = Message("assistant", "", tool_calls=calls)
    assert not calls or parse_messages([message_context(again)]) == (again,), "it can go back into the conversation"


def call(rng: Random) -> None:
    text = dumped(changed(rng, rng.choice(CALLS), rng.choice((0, 1, 1, 2))))
    if rng.random() < 0.3:
        text = damaged(rng, text.encode(errors="surrogatepass")).decode("utf-8", "surrogateescape")
    if rng.random() < 0.1:
        text = rng.choice(("", " ", text + text, f"{text},{text}", f"{text}\n{text},", "[" * 3000, text + "x"))
    try:
        calls = read_calls(text)
    except ErnieRtError as error:
        whole = parts(OutputParser(), [f"<tool_call>{text}</tool_call>"])
        assert any(part.fault for part in whole) or "<" in text or '"' in text, (text, error)
        raise
    assert all(isinstance(call.name, str) and isinstance(call.arguments, dict) for call in calls)


def impossible(rng: Random) -> object:
    return rng.choice((
        ["a"] * rng.choice((64, 65)), ["a" * rng.choice((1024, 1025))], value(rng), [rng.choice(TEXTS)],
        [value(rng)], None, "text", b"x", ["\ud800"], iter(["a"]),
    ))  # fmt: skip


def some_of(text: str, rng: Random) -> list[str]:
    """Stop strings that a text has, or nearly."""
    stops = []
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        found = text[at : at + rng.randrange(1, 6)]
        stops.append(found + rng.choice(("", "", "a", "\n")) or "a")
    return stops


def up_to(text: str, stops: list[str] | tuple[str, ...]) -> tuple[str, str]:
    """Up to where the first complete stop string begins, and that stop string."""
    ends = [(place + len(stop), -len(stop), stop) for stop in stops if (place := text.find(stop)) >= 0]
    end, _, stop = min(ends, default=(len(text), 0, ""))
    return text[: end - len(stop)], stop


def cut(text: str, rng: Random, longest: int = 12) -> list[str]:
    """A text in pieces."""
    pieces = []
    while text:
        size = rng.randrange(1, longest)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def parts(parser: OutputParser, pieces: list[str]) -> list[Part]:
    found = [part for piece in pieces for part in parser.push(piece)]
    assert all(part.text for part in found)
    return found + parser.flush()


def merged(found: list[Part]) -> list[Part]:
    """Neighbours of one kind as one part."""
    whole: list[Part] = []
    for part in found:
        last = whole[-1] if whole else None
        if last and not (part.call or last.call) and last.kind == part.kind:
            whole[-1] = Part(part.kind, last.text + part.text)
        else:
            whole.append(Part(part.kind, part.text, part.call))
    return whole


TARGET = Target(
    "answers", ("ernie_rt.text.stops", "ernie_rt.text.parsers", "ernie_rt.text.tool_calls"), start, share=10_000
)
