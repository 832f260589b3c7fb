"""The output parser: the same parts from every split, no half tag shown, nothing lost."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.text.messages import ToolCall
from ernie_rt.text.parsers import OutputParser, Part

CALL = '{"name": "look_up", "arguments": {"what": "上 </think> <x>", "n": 1}}'
TAGS = ["<think>", "</think>", "<response>", "</response>", "<tool_call>", "</tool_call>"]


def merge(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind as one part."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last and not (part.call or last.call) and last.kind == part.kind:
            merged[-1] = Part(part.kind, last.text + part.text)
        else:
            merged.append(part)
    return merged


def parse(pieces: list[str], thinking: bool = False) -> list[Part]:
    parser = OutputParser(thinking)
    parts = [part for piece in pieces for part in parser.push(piece)]
    assert all(part.text for part in parts)
    return merge(parts + parser.flush())


def split(text: str, rng: random.Random) -> list[str]:
    pieces = []
    while text:
        size = rng.randrange(1, 12)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def look_up() -> Part:
    return Part("tool_call", CALL, ToolCall("look_up", {"what": "上 </think> <x>", "n": 1}))


CASES = [
    ("Paris.\n", False, [Part("text", "Paris.\n")]),
    ("\n\n  a\n\nb \n\n", False, [Part("text", "\n\n  a\n\nb \n\n")]),
    (
        "I think\n\nso.\n</think>\n\n<response>\n    Yes.\n\nNo.\n</response>\n",
        True,
        [Part("reasoning", "I think\n\nso."), Part("text", "    Yes.\n\nNo.")],
    ),
    ("<think>\n\n</think>\n\nYes\n", False, [Part("text", "Yes")]),
    (f"r</think>\n\n<tool_call>\n{CALL}\n</tool_call>\n", True, [Part("reasoning", "r"), look_up()]),
    (f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", False, [look_up(), look_up()]),
    (f"a<tool_call>{CALL}", False, [Part("text", "a"), look_up()]),
    (
        '<tool_call>\n{"name": "f", \n</tool_call>\nb',
        False,
        [Part("text", '<tool_call>\n{"name": "f", \n</tool_call>b')],
    ),
    ("<tool_call>[1]</tool_call>", False, [Part("text", "<tool_call>[1]</tool_call>")]),
    ("<tool_call>{", False, [Part("text", "<tool_call>{")]),
    ("<tool_call>", False, [Part("text", "<tool_call>")]),
    ("<tool_call></tool_call>", False, [Part("text", "<tool_call></tool_call>")]),
    ('<tool_call>{"name":"f"}</tool_call>', False, [Part("tool_call", '{"name":"f"}', ToolCall("f", {}))]),
    (
        '<tool_call>{"name":"f","arguments":"{\\"a\\": 1}"}</tool_call>',
        False,
        [Part("tool_call", '{"name":"f","arguments":"{\\"a\\": 1}"}', ToolCall("f", {"a": 1}))],
    ),
    ("a < b <thin </think> </response> c <", False, [Part("text", "a < b <thin </think> </response> c <")]),
    ("never ends", True, [Part("reasoning", "never ends")]),
    ("<<think>r</think", False, [Part("text", "<"), Part("reasoning", "r</think")]),
    ("", True, []),
]


@pytest.mark.parametrize(("text", "thinking", "parts"), CASES)
def test_every_split_gives_the_same_parts(text: str, thinking: bool, parts: list[Part]) -> None:
    assert parse([text], thinking) == parts
    assert parse(list(text), thinking) == parts
    for cut in range(len(text)):
        assert parse([text[:cut], "", text[cut:]], thinking) == parts
    rng = random.Random(text)
    for _ in range(20):
        assert parse(split(text, rng), thinking) == parts


@settings(max_examples=400, deadline=None)
@given(
    words=st.lists(
        st.sampled_from([*TAGS, "<", ">", "</", "\n", "a", "你", "é", "{}", CALL, "<tool", "think>"]), max_size=14
    ),
    seed=st.integers(0, 999),
    thinking=st.booleans(),
)
def test_any_text_in_any_split(words: list[str], seed: int, thinking: bool) -> None:
    text = "".join(words)
    whole = parse([text], thinking)
    assert parse(split(text, random.Random(seed)), thinking) == whole
    for letter in "你é":  # in no tag
        assert sum(part.text.count(letter) for part in whole) == text.count(letter)


def test_no_part_of_a_tag_is_shown() -> None:
    parser = OutputParser()
    assert [parser.push(letter) for letter in "a<think"] == [[Part("text", "a")], [], [], [], [], [], []]
    assert parser.push(">b") == [Part("reasoning", "b")]
    assert parser.push("</") == []
    assert parser.push("x") == [Part("reasoning", "</x")]


def test_text_comes_at_once() -> None:
    parser = OutputParser(thinking=True)
    assert parser.push("\n") == []
    assert parser.push("step\n") == [Part("reasoning", "step")]
    assert parser.push("two") == [Part("reasoning", "\ntwo")]


@pytest.mark.parametrize(
    "unit", ["a", "<", "\n", "<think>", "</think>", "<tool_call>", "<tool_call>{", "<tool_call></tool_call>"]
)
def test_time_is_linear(unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        best = 9.0
        for _ in range(3):
            parser = OutputParser()
            began = time.process_time()
            parser.push(text)
            for letter in text[: size // 10]:
                parser.push(letter)
            parser.flush()
            best = min(best, time.process_time() - began)
        return best

    assert seconds(40_000) < 6 * seconds(10_000) + 0.02
