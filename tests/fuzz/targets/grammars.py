"""Formats that an answer must have: schemas, regexes, grammars, tools. They are tried in a child, then walked."""

from __future__ import annotations

import random
from pathlib import Path
from random import Random
from typing import Any, Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.generation.constrained import ToolCalls
from ernie_rt_serve.grammars import MAX_BYTES, Grammars
from ernie_rt_serve.structured import constraint
from ernie_rt_serve.task import Format, Task
from fuzz.chains import one_of
from fuzz.mutations import TEXTS, changed, changed_text, value
from fuzz.target import Attempt, Target
from support.toy_tokenizers import write_toy

SCHEMAS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["a"]},
    {"type": "array", "items": {"enum": ["ab", 1, None]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"const": "x"}, {"type": "string", "pattern": "^[a-c]{1,3}$"}, {"type": "number", "multipleOf": 0.5}]},
    {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    {"type": "string", "format": "date", "minLength": 1}, {"type": ["string", "null"]}, {},
    {"additionalProperties": False},
    {"prefixItems": [{"type": "boolean"}], "items": False}, {"allOf": [{"type": "object"}, {"required": ["a"]}]},
)  # fmt: skip
WORDS: Final = (
    "$ref", "#", "#/$defs/none", "http://x/y", "objct", "not", "if", "oneOf", "patternProperties", "uniqueItems",
    "(?!a)b",
    "(?<=a)", "a{1,99999}", "(a|b)*", "x-guidance", "file:///etc/passwd", "\\p{L}", "[", "date-time",
)  # fmt: skip
REGEXES: Final = (
    "[a-z]{2,5}",
    "(ab|c)+\\d?",
    "\\w+@\\w+",
    "a*",
    "[^x]",
    "\\u4e00",
    "(?i)ab",
    "a{0,3}b{2}",
    ".",
    "新|词",
)
LARKS: Final = (
    'start: "a" | "b" start', "start: X+\nX: /[abc]/", 'start: %json {"type": "boolean"}', 'start: "x" ("," "x")*',
    "start: a\na: b\nb: /x/ | a", "%ignore / /\nstart: /a/ /b/", 'start[temperature=0.5]: "a"', 'start: /a/ & /[ab]/',
)  # fmt: skip
ODD: Final = (
    "", "start:", 'start: "a', "start: x", "%import .secrets.X\nstart: X", "start: " + "(" * 3000 + '"a"' + ")" * 3000,
    "x" * (MAX_BYTES + 1), "start: /(a|/", "%llguidance {}", 'start: "a"\n%llguidance {"no_forcing": 5}', "start: \0",
)  # fmt: skip


def start(folder: Path) -> Attempt:
    grammars = Grammars(write_toy(folder / "tokenizer"))
    walk(grammars, Task((), format=Format("json")), random.Random(0))

    def attempt(rng: Random) -> None:
        try:
            walk(grammars, drawn(rng), rng)
        except ErnieRtError as error:
            raise one_of(error, rng) or error from None

    return attempt


def walk(grammars: Grammars, task: Task, rng: Random) -> None:
    """A text by the masks, as long as there is one; a mask allows something, or the text may end."""
    made = constraint(task, grammars)
    if made is None:
        return
    state = (made.call if isinstance(made, ToolCalls) else made).start()
    for _ in range(rng.choice((1, 5, 20))):
        mask = state.mask()
        assert mask is not None
        allowed = mask.nonzero()[0]
        if state.complete or not len(allowed):
            assert state.may_end
            return
        state.accept(int(rng.choice(allowed)))


BIG: Final = tuple({"name": f"f{n}", "parameters": {"description": "x" * 20_000}} for n in range(4))
WRONG: Final = (
    Task((), format=Format("grammar", 'start: "\ud800"')), Task((), format=Format("regex", "x" * (MAX_BYTES + 1))),
    Task((), ({"name": "\ud800"},), "required"),
    Task((), tool_choice="required"), Task((), ({"name": ""},), "required"), Task((), BIG, "required"),
    Task((), ({"name": "f", "parameters": {"type": "string"}},), "required"), Task((), BIG, ("g",)),
    Task((), format=Format("regex")), Task((), format=Format("json_schema", {"type": "objct"})),
)  # fmt: skip
"""What cannot be, each in a way of its own."""


def drawn(rng: Random) -> Task:
    if rng.random() < 0.3:
        return rng.choice(WRONG)
    match rng.randrange(10):
        case 0 | 1 | 2:
            return Task((), format=Format("json_schema", schema(rng)))
        case 3 | 4:
            regex = rng.choice(REGEXES)
            return Task(
                (), format=Format("regex", changed_text(rng, regex) if rng.random() < 0.7 else rng.choice((regex, "")))
            )
        case 5 | 6:
            lark = rng.choice(LARKS)
            return Task(
                (),
                format=Format("grammar", changed_text(rng, lark) if rng.random() < 0.6 else rng.choice((lark, *ODD))),
            )
        case 7:
            kind = rng.choice(("json_schema", "regex", "grammar"))
            return Task((), format=Format(kind, rng.choice((value(rng), {}, "", []))))  # type: ignore[arg-type]
    tools = tuple(tool(rng) for _ in range(rng.choice((0, 1, 1, 2, 5))))
    return Task((), tools, rng.choice(("required", "required", "auto", "none", ("f",), ("g",))), rng.random() < 0.5)


def schema(rng: Random) -> Any:
    tree = rng.choice(SCHEMAS)
    return changed(rng, tree, rng.choice((1, 1, 2)), piece) if rng.random() < 0.7 else tree


def piece(rng: Random) -> Any:
    kind = rng.randrange(4)
    return rng.choice(WORDS) if kind == 0 else rng.choice(SCHEMAS) if kind == 1 else value(rng)


def tool(rng: Random) -> Any:
    function = {
        "name": rng.choice(("f", "g", "f", "", None, *TEXTS)),
        "parameters": rng.choice((schema(rng), SCHEMAS[0], None, {"type": "string"}, 5)),
    }
    return rng.choice(({"type": "function", "function": function}, function))


TARGET = Target(
    "grammars",
    ("ernie_rt_serve.grammars", "ernie_rt_serve.structured"),
    start,
    share=150,
    excused={
        "takes too long": "a second each; tests/serve/test_structured.py has it",
        "raise self._error()": "what becomes too complex takes as long; that has it, too",
        "the schema is no JSON": "schemas come as JSON",
    },
)
