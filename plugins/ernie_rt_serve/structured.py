"""What an answer must be, as a task says it: JSON, a schema's JSON, a regex, a grammar, calls of its tools."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import llguidance

from ernie_rt.errors import OptionError
from ernie_rt.generation.constrained import ToolCalls
from ernie_rt.sampling.constraint import Constraint
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
FAILED: Final = "at 1(8): failed to compile JSON schema: "
"""What llguidance says before it says what is wrong."""
LOOKED_FOR_SECONDS: Final = 1.0
"""So long the wrong one is looked for among the schemas within one, or among those of tools."""


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
    named: list[tuple[str, str, Mapping[str, Any]]] = []
    for number, tool in enumerate(tools, 1):
        function = _function(tool)
        name, parameters = function.get("name"), function.get("parameters") or {}
        where = f"tool {number}"
        if not isinstance(name, str) or not name:
            raise OptionError("a tool without a name", where=where)
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise OptionError("the parameters of a tool are no object", where=f"{where}, {name!a:.80}")
        named.append((f"{where}, {name!a:.80}", name, {**parameters, **OBJECT}))
    try:
        whole = grammars.compiled(f"start: {' | '.join(_call(name, parameters) for _, name, parameters in named)}")
    except OptionError as error:
        until = _soon()
        for where, _, parameters in named:
            if time.monotonic() < until:
                _of_schema(parameters, grammars, where, until)
        raise _at("tools", error) from None
    return ToolCalls(whole, task.parallel_tool_calls, text)


def _call(name: str, parameters: Mapping[str, Any]) -> str:
    """A call of a tool, in a grammar."""
    head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
    return f'({json.dumps(head, ensure_ascii=False)} {_json(parameters)} "}}")'


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def _of_schema(schema: Mapping[str, Any], grammars: Grammars, where: str, until: float | None = None) -> Constraint:
    """A constraint of a schema; OptionError with the place of what is wrong, which is looked for `until` then."""
    try:
        return grammars.compiled(f"start: {_json(schema)}")
    except OptionError as error:
        place = _place_of(error.found, schema, grammars, until or _soon())
        raise _at(where + place, error) from None


def _soon() -> float:
    return time.monotonic() + LOOKED_FOR_SECONDS


def _compiled(lark: str, grammars: Grammars, where: str) -> Constraint:
    try:
        return grammars.compiled(lark)
    except OptionError as error:
        raise _at(where, error) from None


def _at(where: str, error: OptionError) -> OptionError:
    """The same error of this place."""
    found = None if error.found is None else error.found.removeprefix(FAILED)
    return OptionError(error.what, where=where, expected=error.expected, found=found, hint=error.hint)


def _place_of(fault: str | None, schema: Mapping[str, Any], grammars: Grammars, until: float) -> str:
    """The path of the innermost schema within a schema that has the same fault by itself, as far as it is found in
    time: each that is tried may take a second."""
    for path, inner in _within(schema):
        if fault is None or time.monotonic() > until:
            break
        try:
            grammars.compiled(f"start: {_json(inner)}")
        except OptionError as error:
            if error.found == fault:
                return path + _place_of(fault, inner, grammars, until)
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
