"""What is wrong with JSON that is no such Struct, in words, and where."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, ValidationError, inspect

PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
"""Where msgspec puts a fault: at `$.messages[0].role`."""
ENUM: Final = re.compile(r"^Invalid enum value .*", re.DOTALL)
"""What msgspec says of a value that is none of several, with a stranger's own text in it."""
STEP: Final = re.compile(r"\.?(\w+)|\[[^][]*\]")
"""A field's name, or an item of a list."""


def explain(error: ValidationError, kind: type[Struct]) -> tuple[str, str]:
    """Where the fault is, "" for everywhere, and what it is; what somebody sent is not repeated."""
    found = PLACE.search(str(error))
    place = "" if found is None else found[1]
    allowed = ", ".join(repr(value) for value in _allowed(kind, place)) or "the values that it may have"
    return place[:80], ENUM.sub(f"Not one of {allowed}", PLACE.sub("", str(error)))


def _allowed(kind: type[Struct], place: str) -> Iterator[object]:
    """The values that there are to choose from at a place."""
    types: Iterable[inspect.Type] = [_type_info(kind)]
    for step in STEP.finditer(place):
        types = [below for type in _plain(types) for below in _below(type, step[1])]
    for type in _plain(types):
        if isinstance(type, inspect.LiteralType):
            yield from type.values


def _plain(types: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    for type in types:
        if isinstance(type, inspect.UnionType):
            yield from _plain(type.types)
        elif isinstance(type, inspect.Metadata):
            yield from _plain([type.type])
        else:
            yield type


def _below(type: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    if isinstance(type, inspect.StructType):
        yield from (field.type for field in type.fields if field.encode_name == name)
    elif isinstance(type, inspect.ListType) and name is None:
        yield type.item_type


_type_info = functools.cache(inspect.type_info)
