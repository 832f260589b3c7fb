"""What an answer must be, as a task says it: JSON, a schema's JSON, a regex, a grammar, calls of its tools."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import llguidance

from ernie_rt.errors import OptionError
from ernie_rt.generation.constrained import ToolCalls
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.untrusted_json import is_text
from ernie_rt_serve.grammars import Grammars
from ernie_rt_serve.task import Format, Task

WHITESPACE: Final = r"( |\n[ \t]{0,32})?"
"""Between the tokens of JSON: no model may go on with white space for ever."""
OBJECT: Final = {"type": "object"}
MANY, SEVERAL, ONE = (
    frozenset({"properties", "patternProperties", "$defs", "definitions"}),
    frozenset({"anyOf", "oneOf", "allOf", "prefixItems"}),
    frozenset({"items", "additionalProperties"}),
)
"""Where schemas lie within a schema: in an object, in a list, by themselves."""
FAILED: Final = re.compile(r"at \d+\(\d+\): failed to compile JSON schema: ")
"""What llguidance says before it says what is wrong."""
MOST_LOOKED_AT: Final = 64
LOOKING_SECONDS: Final = 1.0
"""So many schemas of a request are tried in search of the wrong one, and for so long."""


def constraint(task: Task, grammars: Grammars) -> Constraint | ToolCalls | None:
    """What the answer to a task must be, as an option of `chat` or `generate`; None where it is free.

    Compiling takes milliseconds, and for what is turned away a second. OptionError says what is wrong, and where.
    """
    text = None if task.format is None else format_constraint(task.format, grammars)
    match task.tool_choice:
        case "none":
            return text
        case "auto":
            return text if text is None or not task.tools else _calls(task, task.tools, grammars, text)
        case "required":
            tools = task.tools
        case (name,):
            tools = tuple(tool for tool in task.tools if _function(tool).get("name") == name)
            if not tools:
                raise OptionError("no tool of that name", where="tool_choice", found=ascii(name)[:80])
    if not tools:
        raise OptionError("there is no tool to call", where="tool_choice", hint="Give `tools`")
    return _calls(task, tools, grammars, None)


def format_constraint(format: Format, grammars: Grammars) -> Constraint:
    """A constraint of a text."""
    if isinstance(format.source, str) and not is_text(format.source):
        raise OptionError("the format is not Unicode text", where=format.kind, found="a lone surrogate")
    match format.kind, format.source:
        case "json", _:
            return grammars.compiled(f"start: {_json(OBJECT)}")
        case "json_schema", Mapping() as schema:
            return _of_schema(schema, grammars, "json_schema")
        case "regex", str(regex) if regex:
            return _compiled(f"start: /{llguidance.regex_to_lark(regex)}/", grammars, "regex")
        case "grammar", str(grammar) if grammar:
            return _compiled(grammar, grammars, "grammar")
    expected = "an object" if format.kind == "json_schema" else "a text that is not empty"
    raise OptionError("the format says nothing", where=format.kind, expected=expected)


def _calls(task: Task, tools: tuple[Mapping[str, Any], ...], grammars: Grammars, text: Constraint | None) -> ToolCalls:
    """Calls of these tools, by the schemas of their arguments."""
    given: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for number, tool in enumerate(tools, 1):
        function = _function(tool)
        name, parameters = function.get("name"), function.get("parameters") or {}
        where = f"tool {number}"
        if not isinstance(name, str) or not name:
            raise OptionError("a tool without a name", where=where)
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise OptionError("the parameters of a tool are no object", where=f"{where}, {name!a:.80}")
        head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
        given[f"{where}, {name!a:.80}"] = json.dumps(head, ensure_ascii=False), {**parameters, **OBJECT}
    try:
        calls = " | ".join(f'({head} {_json(schema)} "}}")' for head, schema in given.values())
        return ToolCalls(grammars.compiled(f"start: {calls}"), task.parallel_tool_calls, text)
    except OptionError as error:
        search = _Search()
        for where, (_, schema) in given.items():
            if search.goes_on():
                _of_schema(schema, grammars, where, search)
        raise _at("tools", error) from None


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


class _Search:
    """How much of a request is looked at for what is wrong with it: whoever asks for much is not told all."""

    def __init__(self) -> None:
        self._left, self._until = MOST_LOOKED_AT, time.monotonic() + LOOKING_SECONDS

    def goes_on(self) -> bool:
        self._left -= 1
        return self._left >= 0 and time.monotonic() < self._until


def _of_schema(schema: Mapping[str, Any], grammars: Grammars, where: str, search: _Search | None = None) -> Constraint:
    try:
        return grammars.compiled(f"start: {_json(schema)}")
    except OptionError as error:
        raise _at(where + _place_of(error.found, schema, grammars, search or _Search()), error) from None


def _compiled(lark: str, grammars: Grammars, where: str) -> Constraint:
    try:
        return grammars.compiled(lark)
    except OptionError as error:
        raise _at(where, error) from None


def _at(where: str, error: OptionError) -> OptionError:
    """The same error of this place."""
    found = None if error.found is None else FAILED.sub("", error.found, count=1)
    return OptionError(error.what, where=where, expected=error.expected, found=found, hint=error.hint)


def _place_of(fault: str | None, schema: Mapping[str, Any], grammars: Grammars, search: _Search) -> str:
    """The path of the innermost schema within a schema that has the same fault by itself, as far as that is searched
    for."""
    for path, inner in _within(schema):
        if fault is None or not search.goes_on():
            break
        try:
            grammars.compiled(f"start: {_json(inner)}")
        except OptionError as error:
            if error.found == fault:
                return path + _place_of(fault, inner, grammars, search)
    return ""


def _within(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in schema.items():
        if key in MANY and isinstance(value, Mapping):
            several = [(f".{key}.{name}", inner) for name, inner in value.items()]
        elif key in SEVERAL and isinstance(value, list):
            several = [(f".{key}[{place}]", inner) for place, inner in enumerate(value)]
        else:
            several = [(f".{key}", value)] if key in ONE else []
        yield from ((path, inner) for path, inner in several if isinstance(inner, Mapping))


def _json(schema: Mapping[str, Any]) -> str:
    """The JSON of a schema, in a grammar."""
    try:
        text = json.dumps({**schema, "x-guidance": {"whitespace_pattern": WHITESPACE}}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError("the schema is no JSON", found=f"{error}"[:80]) from None
    return f"%json {text}"
