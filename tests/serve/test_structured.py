"""Structured output: whatever a model's logits are, what it says parses; and what nobody can compile is turned away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ernie_rt
from ernie_rt.errors import CapacityError, OptionError
from ernie_rt.generation.constrained import ToolCalls
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.session import Model
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_serve.grammars import MAX_BYTES, Grammars
from ernie_rt_serve.structured import constraint, format_constraint
from ernie_rt_serve.task import Format, Task
from support.scripted import write_chat_checkpoint
from support.templates import THINKING
from support.untrained import write_untrained

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
REGEXES = [r"[0-9]{3}-[a-z]{2}", r"(yes|no|也许)!{0,3}", r"^\w{1,4} \d\.\d$", r"[^a-z\n]{2,5}/\\"]
ASKED = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "model"
    write_untrained(folder)
    return folder


@pytest.fixture(scope="module", params=["eager", "onnx", "reference"])
def model(request: pytest.FixtureRequest, untrained: Path) -> Iterator[Model]:
    with ernie_rt.load(untrained, backend=request.param, dtype="float32", max_context=512, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def grammars(untrained: Path) -> Iterator[Grammars]:
    with Grammars(ernie_rt.locate(untrained).tokenizer) as grammars:
        yield grammars


def is_person(text: str) -> bool:
    value = json.loads(text)
    assert set(PERSON["required"]) <= value.keys() <= set(PERSON["properties"])
    assert isinstance(value["name"], str) and len(value["name"]) <= 8 and value["kind"] in ("a", "b")
    assert type(value["age"]) is int and 0 <= value["age"] <= 130
    return all(isinstance(tag, bool) for tag in value.get("tags", ()))


def test_answers_of_random_logits_are_what_they_must_be(model: Model, grammars: Grammars) -> None:
    """Greedy and drawn, several at once of one constraint, beside one that is free."""
    person = format_constraint(Format("json_schema", PERSON), grammars)
    options: Any = {"max_new_tokens": 200, "ignore_eos": True}
    for temperature in (0, 1):
        for ids in model.generate_batch(
            ["a", "the", "第"], constraint=person, temperature=temperature, seed=1, **options
        ):
            assert len(ids) < 200 and is_person(model.tokenizer.decode(ids))
    for regex in REGEXES:
        fits = format_constraint(Format("regex", regex), grammars)
        said = model.generate("a", constraint=fits, seed=2, **options)
        assert said.finish == "stop" and re.fullmatch(regex, said.text)


def test_a_grammar_and_what_options_may_do_beside_it(grammars: Grammars, untrained: Path) -> None:
    listed = format_constraint(Format("grammar", 'start: ITEM ("," ITEM)*\nITEM: "ab" | /[0-9]{2}/'), grammars)
    with ernie_rt.load(untrained, backend="reference", max_context=256) as model:
        comma = model.tokenizer.encode(",")[0]
        for options in ({}, {"logit_bias": {comma: 100.0}}, {"min_new_tokens": 12}, {"repetition_penalty": 1.5}):
            said = model.generate("a", constraint=listed, temperature=1, seed=4, max_new_tokens=60, **options)
            whole = said.text if said.finish == "stop" else said.text.rpartition(",")[0]
            assert re.fullmatch(r"(ab|[0-9]{2})(,(ab|[0-9]{2}))*", whole), options
            assert said.finish == "length" or len(said.ids) > options.get("min_new_tokens", 0)
        free = model.generate("a", constraint=format_constraint(Format("json"), grammars), max_new_tokens=80,
                              temperature=1, seed=1)  # fmt: skip
        assert free.text.startswith("{") and (free.finish == "length" or isinstance(json.loads(free.text), dict))


def test_the_demo_model_answers_in_a_format() -> None:
    with ernie_rt.load("demo", threads=1) as model, Grammars(model.tokenizer) as grammars:
        asked = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]
        regex = format_constraint(Format("regex", r"5 kilograms = \d+ (grams|ounces)"), grammars)
        assert model.chat(asked, constraint=regex).text == "5 kilograms = 5000 grams"
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
            "required": ["name", "age", "city"],
            "additionalProperties": False,
        }
        asked = [{"role": "user", "content": "Sam is 20 years old and lives in Moscow. As JSON, please."}]
        value = json.loads(
            model.chat(asked, constraint=format_constraint(Format("json_schema", schema), grammars)).text
        )
        assert value == {"name": "Sam", "age": 20, "city": "Moscow"}


TOOLS = (
    {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
        "additionalProperties": False, "$defs": {"city": {"enum": ["Paris", "北京"]}}}}},
    {"type": "function", "function": {"name": 'say "hi"'}},
)  # fmt: skip


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = write_chat_checkpoint(tmp_path_factory.mktemp("thinking") / "model", THINKING)
    with ernie_rt.load(folder, backend="eager", dtype="float32", max_context=1024, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def of_thinking(thinking: Model) -> Iterator[Grammars]:
    with Grammars(thinking.tokenizer) as grammars:
        yield grammars


def test_calls_of_tools_behind_reasoning(thinking: Model, of_thinking: Grammars) -> None:
    """Of a model of random weights: whole, of a tool that there is, with arguments by its schema; none is a fault."""
    options = {"thinking_budget": 5, "max_new_tokens": 300, "temperature": 1, "seed": 2}
    named = constraint(Task((), tools=TOOLS, tool_choice=("weather",), parallel_tool_calls=False), of_thinking)
    for seed in range(3):
        said = thinking.chat(ASKED, tools=TOOLS, constraint=named, **options | {"seed": seed})
        assert said.finish == "stop" and not said.faults and not said.text
        (call,) = said.tool_calls
        assert call.name == "weather" and call.arguments["city"] in ("Paris", "北京")
    one = constraint(Task((), tools=TOOLS[1:], tool_choice="required"), of_thinking)
    said = thinking.chat(ASKED, tools=TOOLS, constraint=one, **options | {"max_new_tokens": 60})
    assert isinstance(one, ToolCalls) and one.parallel and all(call.name == 'say "hi"' for call in said.tool_calls)
    either = constraint(Task((), tools=TOOLS, format=Format("json_schema", PERSON)), of_thinking)
    assert isinstance(either, ToolCalls) and either.text is not None
    response = thinking.tokenizer.encode_special("<response>")
    said = thinking.chat(ASKED, tools=TOOLS, constraint=either, **options, logit_bias={response: 100.0})
    assert is_person(said.text) and not said.tool_calls and said.reasoning


@pytest.mark.parametrize(
    ("task", "where"),
    [
        (Task((), tool_choice="required"), "tool_choice"),
        (Task((), tools=TOOLS, tool_choice=("nobody",)), "tool_choice"),
        (Task((), tools=({"function": {}},), tool_choice="required"), "tool 1"),
        (Task((), tools=(*TOOLS, {"name": "x", "parameters": {"type": "string"}}), tool_choice="required"),
         "tool 3, 'x'"),
        (Task((), tools=({"name": "x", "parameters": {"properties": {"a": {"type": "y"}}}},), tool_choice="required"),
         "tool 1, 'x'.properties.a"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_called(task: Task, where: str, grammars: Grammars) -> None:
    with pytest.raises(OptionError) as caught:
        constraint(task, grammars)
    assert caught.value.where == where


def test_what_is_asked_for_is_what_there_is(grammars: Grammars) -> None:
    assert constraint(Task(()), grammars) is None
    assert constraint(Task((), tools=TOOLS), grammars) is None
    assert constraint(Task((), tools=TOOLS, tool_choice="none"), grammars) is None
    assert not isinstance(
        constraint(Task((), tools=TOOLS, tool_choice="none", format=Format("json")), grammars), ToolCalls
    )


WRONG: dict[str, tuple[Format, str, str]] = {
    "type": (Format("json_schema", {"type": "objct"}), "json_schema", "Invalid type: objct"),
    "deep": (Format("json_schema", {"properties": {"a": {"items": {"anyOf": [{}, {"type": "x"}]}}}}),
             "json_schema.properties.a.items.anyOf[1]", "Invalid type: x"),
    "reference": (Format("json_schema", {"$ref": "#/$defs/none"}), "json_schema", "does not exist"),
    "elsewhere": (Format("json_schema", {"$ref": "http://example.com/x.json"}), "json_schema", "does not fetch"),
    "itself": (Format("json_schema", {"$ref": "#"}), "json_schema", "nothing fits it"),
    "nothing": (Format("json_schema", {"type": "integer", "minimum": 5, "maximum": 3}), "json_schema", "minimum"),
    "pattern": (Format("json_schema", {"properties": {"a": {"type": "string", "pattern": "(?!a)b"}}}),
                "json_schema.properties.a", "look-around"),
    "unknown": (Format("json_schema", {"type": "array", "uniqueItems": True}), "json_schema", "uniqueItems"),
    "number": (Format("json_schema", {"const": float("nan")}), "json_schema", "not JSON compliant"),
    "no schema": (Format("json_schema", "{}"), "json_schema", ""),
    "no regex": (Format("regex", ""), "regex", ""),
    "group": (Format("regex", "(a"), "regex", "unclosed group"),
    "behind": (Format("regex", "(?<=a)b"), "regex", "look-around"),
    "slash": (Format("grammar", "start: x\ny: z"), "grammar", "1(8)"),
    "parentheses": (Format("grammar", "start: " + "(" * 5000 + '"a"' + ")" * 5000), "grammar", "too deeply nested"),
    "file": (Format("grammar", "%import .secrets.X\nstart: X"), "grammar", "Unknown common regex"),
}  # fmt: skip


@pytest.mark.parametrize("which", WRONG)
def test_a_format_that_is_none_is_said_to_be_so_and_where(which: str, grammars: Grammars) -> None:
    format, where, found = WRONG[which]
    with pytest.raises(OptionError) as caught:
        format_constraint(format, grammars)
    assert caught.value.where == where and found in (caught.value.found or "")


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


PRODUCT = {"allOf": [{"anyOf": [{"properties": {f"k{i}{j}": {}}} for j in range(10)]} for i in range(10)]}
DOUBLED = "start: R0\n" + "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(40)) + '\nR40: "a"'
HOSTILE: dict[str, Format] = {
    "large": Format("regex", "a" * (MAX_BYTES + 1)),
    "nested": Format("json_schema", nested(500)),
    "very nested": Format("json_schema", nested(100_000)),
    "product": Format("json_schema", PRODUCT),
    "tokens": Format("grammar", DOUBLED),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_hostile_formats_are_turned_away_at_once(which: str, grammars: Grammars) -> None:
    began = time.process_time()
    with pytest.raises(OptionError):
        format_constraint(HOSTILE[which], grammars)
    assert time.process_time() - began < 2


def test_a_grammar_has_at_most_64_kib(grammars: Grammars) -> None:
    text = 'start: "a"\n//'.ljust(64 << 10, "x")
    format_constraint(Format("grammar", text), grammars)
    with pytest.raises(OptionError, match="at most 65,536 bytes as a grammar"):
        format_constraint(Format("grammar", text + "x"), grammars)


@pytest.mark.parametrize(
    "format",
    [
        pytest.param(Format("json_schema", {"type": "integer", "multipleOf": 99_999_989}), id="multiple"),
        pytest.param(
            Format("json_schema", {"allOf": [{"type": "string", "pattern": f"a.{{{p}}}b"} for p in range(2, 30)]}),
            id="patterns", marks=pytest.mark.long,
        ),
        pytest.param(
            Format("grammar", 'start: %json {"type": "integer", "multipleOf": 99999989}'),
            id="within a grammar", marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_what_never_compiles_is_stopped_and_harms_nobody_else(format: Format, untrained: Path) -> None:
    with Grammars(ernie_rt.locate(untrained).tokenizer) as grammars:
        with pytest.raises(OptionError, match="takes too long to compile"):
            format_constraint(format, grammars)
        format_constraint(Format("json_schema", PERSON), grammars)


def test_what_becomes_too_complex_ends_its_own_answer(grammars: Grammars, untrained: Path) -> None:
    """The lexer's states are bounded, so a regex that has too many of them ends with an error that says so."""
    hard = format_constraint(Format("regex", "(.{0,500}a.{0,500}){50}"), grammars)
    with (
        ernie_rt.load(untrained, backend="reference", max_context=512) as model,
        pytest.raises(CapacityError, match="the format is too complex to go on"),
    ):
        for seed in range(20):
            model.generate("a", constraint=hard, temperature=1, seed=seed, max_new_tokens=400)


def test_distinct_formats_are_not_kept(grammars: Grammars) -> None:
    for number in range(100):
        format_constraint(Format("regex", f"a{number}"), grammars)
    assert grammars.compiled.cache_info().currsize == 64
    one = format_constraint(Format("regex", "a99"), grammars)
    assert one is format_constraint(Format("regex", "a99"), grammars)


def walked(tokenizer: Tokenizer, constraint: Constraint, text: str) -> np.ndarray[Any, Any]:
    """The mask behind a text, of which every token is a byte."""
    state = constraint.start()
    for byte in text.encode():
        state.accept(tokenizer.pieces.index(bytes([byte])))
    mask = state.mask()
    assert mask is not None
    return mask


def test_a_mask_is_what_trying_every_token_says(grammars: Grammars, untrained: Path) -> None:
    """Tokens that begin with what may come; special tokens, and ids that the tokenizer lacks, never."""
    tokenizer = ernie_rt.locate(untrained).tokenizer
    words = ("the baker watches", "the river", "a small robot")
    regex = format_constraint(Format("regex", "|".join(words)), grammars)
    for said in ("", "t", "the ", "the r", "a small"):
        rests = [word[len(said) :].encode() for word in words if word.startswith(said)]
        expected = [
            bool(piece) and id not in tokenizer.reserved.values() and any(rest.startswith(piece) for rest in rests)
            for id, piece in enumerate(tokenizer.pieces)
        ]
        assert walked(tokenizer, regex, said).tolist() == expected


def test_no_format_lets_a_special_token_come(grammars: Grammars, untrained: Path) -> None:
    tokenizer = ernie_rt.locate(untrained).tokenizer
    anything = walked(tokenizer, format_constraint(Format("regex", r"[\s\S]+"), grammars), "a")
    refused = {id for id in range(len(tokenizer.pieces)) if not anything[id] and tokenizer.pieces[id][:1] < b"\x80"}
    assert refused == {id for id, piece in enumerate(tokenizer.pieces) if not piece} | {*tokenizer.reserved.values()}
