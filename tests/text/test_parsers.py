"""The output parser: the same parts from every split, no half tag shown, nothing lost."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.text.messages import Message, ToolCall, message_context, parse_messages
from ernie_rt.text.parsers import OutputParser, Part

CALL = '{"name": "look_up", "arguments": {"what": "上 </think> <x>", "n": 1}}'
INNER = '{"name": "f", "arguments": {"n": 1}}'
WITHIN = f"<tool_call>{INNER}</tool_call>"
F = Part("tool_call", INNER, ToolCall("f", {"n": 1}))
TAGS = ["<think>", "</think>", "<response>", "</response>", "<tool_call>", "</tool_call>"]


def merge(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind as one part."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last and not (part.call or last.call) and last.kind == part.kind:
            merged[-1] = Part(part.kind, last.text + part.text)
        else:
            merged.append(Part(part.kind, part.text, part.call))
    return merged


def parse(pieces: list[str], thinking: bool = False) -> list[Part]:
    parser = OutputParser(thinking)
    parts = [part for piece in pieces for part in parser.push(piece)]
    assert all(part.text for part in parts)
    return merge(parts + parser.flush())


def faults(text: str) -> list[str]:
    parser = OutputParser()
    return [part.fault for part in [*parser.push(text), *parser.flush()] if part.fault]


def split(text: str, rng: random.Random) -> list[str]:
    pieces = []
    while text:
        size = rng.randrange(1, 12)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def look_up() -> Part:
    return Part("tool_call", CALL, ToolCall("look_up", {"what": "上 </think> <x>", "n": 1}))


CLOSING = '{"name": "write", "arguments": {"text": "end with </tool_call> \\"<tool_call>\\\\"}}'


def writes() -> Part:
    return Part("tool_call", CLOSING, ToolCall("write", {"text": 'end with </tool_call> "<tool_call>\\'}))


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
    # Calls within the reasoning count where nothing else came of it.
    (f"r{WITHIN}\n", True, [Part("reasoning", f"r{WITHIN}"), F]),
    (f"r{WITHIN}\n</think>\n", True, [Part("reasoning", f"r{WITHIN}"), F]),
    (f"r{WITHIN}</think>a", True, [Part("reasoning", f"r{WITHIN}"), Part("text", "a")]),
    (f"r{WITHIN}</think>{WITHIN}", True, [Part("reasoning", f"r{WITHIN}"), F]),
    ("r<tool_call>{}</tool_call>", True, [Part("reasoning", "r<tool_call>{}</tool_call>")]),
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
    (f"<tool_call>{CLOSING}</tool_call>b", False, [writes(), Part("text", "b")]),
    (f"<tool_call>\n{CLOSING}\n", False, [writes()]),
    (f"<tool_call>{CLOSING}</tool_c", False, [writes()]),
    (f"<tool_call>{CLOSING}\n<tool_call>{CALL}</tool_call>", False, [writes(), look_up()]),
    (  # a quotation mark too few: what looks like a tag is one after all
        f'<tool_call>{{"name": "f}}</tool_call>\n<think>r</think><tool_call>{CALL}</tool_call>',
        False,
        [Part("text", '<tool_call>{"name": "f}</tool_call>'), Part("reasoning", "r"), look_up()],
    ),
    ('<tool_call>{"a": "b</tool_call>c', False, [Part("text", '<tool_call>{"a": "b</tool_call>c')]),
    ('<tool_call>"\\"</tool_call>c', False, [Part("text", '<tool_call>"\\"</tool_call>c')]),
    (f"<tool_call>{{'a': \"</tool_call>{CALL}", False, [Part("text", f"<tool_call>{{'a': \"</tool_call>{CALL}")]),
    (f"<tool_call><<tool_call>{CALL}</tool_call>", False, [Part("text", "<tool_call><"), look_up()]),
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


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("</think> \n<response> \nA cat.\n</response> \n", "A cat."),
        ("</think> \n<response> \n - a\n - b", " - a\n - b"),
        ("</think> a", " a"),
        ("</think>\n a \n", " a "),
        ("</think> ", ""),
        ("</think>  \na", "  \na"),
    ],
)
def test_the_space_between_a_tag_and_a_newline_belongs_to_the_tag(answer: str, text: str) -> None:
    """The Thinking model's tokenizer puts it there."""
    parts = [Part("reasoning", "Hm."), *([Part("text", text)] if text else [])]
    assert parse([f"Hm.\n{answer}"], thinking=True) == parts
    assert parse([*f"Hm.\n{answer}"], thinking=True) == parts


@settings(max_examples=400, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(
            [
                *TAGS,
                "<",
                ">",
                "</",
                "\n",
                " ",
                "a",
                "你",
                "é",
                "{}",
                CALL,
                CLOSING,
                '"',
                "\\\\",
                '{"a": "',
                "<tool",
                "think>",
            ]
        ),
        max_size=14,
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


WRITTEN: list[tuple[str, list[ToolCall]]] = [
    ('{"name": "f"}', [ToolCall("f", {})]),
    ('{"name": "f", "arguments": null}', [ToolCall("f", {})]),
    ('{"name": "f", "arguments": ""}', [ToolCall("f", {})]),
    ('{"arguments": {"a": 1}, "name": "f"}', [ToolCall("f", {"a": 1})]),
    ('{"name": "f", "parameters": {"x": 1}}', [ToolCall("f", {"x": 1})]),
    ('{"name": "f", "parameters": "{\\"x\\": 1}"}', [ToolCall("f", {"x": 1})]),
    ('{"name": "f", "parameters": {"x": 1}, "arguments": {"x": 1}}', [ToolCall("f", {"x": 1})]),
    ('{"name": "f", "arguments": {"id": 123456789012345678901234}}', [ToolCall("f", {"id": 123456789012345678901234})]),
    (f'{{"name": "f", "arguments": {{"id": -{10**300}}}}}', [ToolCall("f", {"id": -(10**300)})]),
    ('{"name": "f", "arguments": "{\\"id\\": 12345678901234567890}"}', [ToolCall("f", {"id": 12345678901234567890})]),
    ('{"name": "f", "arguments": {"a": "one\ntwo\t"}}', [ToolCall("f", {"a": "one\ntwo\t"})]),
    ('{"name": "f", "arguments": {"a": 1}, "id": "c1"}', [ToolCall("f", {"a": 1}, "c1")]),
    ('{"name": "f", "arguments": {"a": 1}, "id": 5, "thought": "x"}', [ToolCall("f", {"a": 1})]),
    ('{"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}', [ToolCall("f", {}, "c")]),
    ('[{"name": "f"}]', [ToolCall("f", {})]),
    ('[{"name": "f"}, {"name": "g", "arguments": {"f": []}}]', [ToolCall("f", {}), ToolCall("g", {"f": []})]),
    ('{"name": "f"}\n{"name": "g"}', [ToolCall("f", {}), ToolCall("g", {})]),
    ('{"name": "f"},{"name": "g"}', [ToolCall("f", {}), ToolCall("g", {})]),
]  # fmt: skip
NONE: list[tuple[str, str]] = [
    ("", "nothing in it"),
    ("[]", "nothing in it"),
    ("[[]]", "no object; .*found a list"),
    ("1 2", "no object; .*found a number"),
    ('"f"', "no object; .*found text"),
    ("true", "no object; .*found true or false"),
    ("f(x=1)", "malformed JSON"),
    ('{"name": "f", "arguments": {"x": 1,}}', "malformed JSON"),
    ("{'name': 'f'}", "malformed JSON"),
    ('{"name": "f", "arguments": {"x": 1}', "malformed JSON"),
    ('{"name": "f"},', "malformed JSON"),
    ('{"name": "f"} and more', "malformed JSON"),
    ('{"name": "f", "arguments": {"x": NaN}}', "NaN is not a JSON number"),
    ('{"name": "f", "arguments": {"x": 1e999}}', "beyond float64"),
    ('{"name": "f", "arguments": {"x": %s}}' % ("9" * 5000), "beyond float64"),
    ('{"name": "f", "arguments": {"x": "\\ud800"}}', "lone surrogate"),
    ('{"name": "f", "arguments": {"x": 1, "x": 2}}', "occurs twice"),
    ('{"name": "f", "name": "g"}', "occurs twice"),
    ('{"name": ""}', "no name"),
    ('{"name": 5}', "no name"),
    ('{"tool": "f"}', "no name of a tool; found 'tool'"),
    ("{}", "no name of a tool; found no key"),
    ('{"name": "f", "arguments": [1]}', "arguments is no object; found a list"),
    ('{"name": "f", "arguments": "x = 1"}', "the arguments of a tool call: malformed JSON"),
    ('{"name": "f", "arguments": "[1]"}', "arguments is no object"),
    ('{"name": "f", "parameters": false}', "parameters is no object; found true or false"),
    ('{"name": "f", "input": {"x": 1}}', "a key that calls do not have; found 'input'"),
    ('{"name": "f", "x": 1, "arguments": {}}', "a key that calls do not have; found 'x'"),
    ('{"name": "f", "description": "d", "parameters": {"type": "object"}}', "found 'description'"),
    ('{"name": "f", "arguments": {"x": 1}, "parameters": {"x": 2}}', "arguments and parameters that differ"),
    ('{"function": {"name": "f"}, "arguments": {"x": 1}}', "found 'arguments'"),
    ('[{"name": "f"}, {"nam": "g"}]', "no name"),
    ("[" * 3000, "malformed JSON|nested"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "calls"), WRITTEN)
def test_calls_as_models_write_them(body: str, calls: list[ToolCall]) -> None:
    parts = parse([f"<tool_call>\n{body}\n</tool_call>"])
    assert [part.call for part in parts] == calls and {part.text for part in parts} == {body.strip()}
    again = Message("assistant", "", tool_calls=tuple(calls))
    assert parse_messages([message_context(again)]) == (again,), "it can go back into the conversation"


@pytest.mark.parametrize(("body", "fault"), NONE)
def test_what_is_no_call_stays_as_it_was_written(body: str, fault: str) -> None:
    text = f"<tool_call>{body}</tool_call>"
    assert parse([text]) == [Part("text", text)]
    (said,) = faults(text)
    assert re.search(fault, said), said


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
    "unit",
    ["a", "<", "\n", "<think>", "</think>", "<tool_call>", "<tool_call>{", "<tool_call></tool_call>",
     '<tool_call>"</tool_call>', '<tool_call>\\"</tool_call>', '<tool_call>"\\"</tool_call>', "</tool_call>",
     f"<tool_call>{CLOSING}", f"<tool_call>{CLOSING[:-1]}", f"<tool_call>{CLOSING}</tool_call>"],
)  # fmt: skip
@pytest.mark.parametrize("begin", ["", "<tool_call>", '<tool_call>"'])
def test_time_is_linear(unit: str, begin: str) -> None:
    def seconds(size: int) -> float:
        text = begin + (unit * size)[:size]
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

    # Eight times as much; what is quadratic takes 64 times as long, and a machine that others use may take three.
    assert seconds(40_000) < 12 * seconds(5_000) + 0.02
