"""Tool calls as models write them, in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ernie_rt.errors import JsonError
from ernie_rt.text.messages import ToolCall
from ernie_rt.untrusted_json import parse_json

WHERE: Final = "a tool call"
STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Also one that never ends: looked for again behind each of its quotes, it would take square time."""
SPACE: Final = re.compile(r"[ \t\r\n]*")
CONTROL: Final = re.compile(r"[\x00-\x1f]")


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls in `text`: one or several, after each other or in a list; JsonError says why it is no calls.

    Taken for what they mean are `parameters` for `arguments`, arguments that are JSON in a string or absent, a call
    under `function` as a conversation has it, and lines that break within a string. Refused is whatever would leave
    out some of what was written: other keys where arguments should be, keys that occur twice, and what is no JSON.
    """
    values = list(_values(STRING.sub(_escaped, text)))
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        raise JsonError("nothing in it", where=WHERE)
    return tuple(_call(value) for value in values)


def _values(text: str) -> Iterator[Any]:
    """JSON values one after the other, with white space or a comma between two."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)  # which only sees where a value ends
    position = _skip(text, 0)
    while position < len(text):
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):  # parse_json says why
            end = len(text)
        yield parse_json(text[position:end].encode(errors="surrogatepass"), where=WHERE)
        position = _skip(text, end)
        if text.startswith(",", position) and _skip(text, position + 1) < len(text):
            position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    """Where the white space ends that begins at `position`."""
    space = SPACE.match(text, position)
    return position if space is None else space.end()


def _escaped(string: re.Match[str]) -> str:
    return CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", string[0])


def _call(value: object) -> ToolCall:
    if not isinstance(value, dict):
        raise JsonError("no object", where=WHERE, expected='{"name": text, "arguments": an object}', found=_kind(value))
    function = value.get("function")
    if isinstance(function, dict):
        _check_keys(value, {"function", "type", "id"})
        function = {"id": value.get("id"), **function}
    else:
        function = value
    name, id = function.get("name"), function.get("id")
    if not isinstance(name, str) or not name:
        raise JsonError("no name of a tool", where=WHERE, found=", ".join(map(ascii, function))[:80] or "no key")
    given = [key for key in ("arguments", "parameters") if function.get(key) is not None]
    if len(given) > 1 and function["arguments"] != function["parameters"]:
        raise JsonError("arguments and parameters that differ", where=WHERE)
    arguments = _arguments(function[given[0]], given[0]) if given else {}
    if not arguments or given == ["parameters"]:  # those may be what the other keys hold, or a tool's own description
        _check_keys(function, {"name", "arguments", "parameters", "type", "id"})
    return ToolCall(name, arguments, id if isinstance(id, str) else None)


def _arguments(value: object, key: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = parse_json(STRING.sub(_escaped, value).encode(), where=f"the {key} of a tool call") if value else {}
    if not isinstance(value, dict):
        raise JsonError(f"{key} is no object", where=WHERE, found=_kind(value))
    return value


def _check_keys(value: Mapping[str, object], known: set[str]) -> None:
    others = [key for key in value if key not in known]
    if others:
        raise JsonError("a key that calls do not have", where=WHERE, found=ascii(others[0])[:80])


def _kind(value: object) -> str:
    return {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
