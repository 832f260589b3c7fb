"""JSON that strangers wrote, as Structs: msgspec alone parses it, and here alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")


def decode(data: bytes | str | msgspec.Raw, kind: type[T]) -> T:
    """What JSON says, as this type; msgspec.DecodeError for what cannot be parsed, ValidationError for other types."""
    with _of_one_kind():
        decoded: T = _decoder(cast(Any, kind)).decode(data)
    return decoded


def on_one_line(data: bytes) -> bytes:
    """The same JSON without line breaks; msgspec.DecodeError for what is none."""
    with _of_one_kind():
        return msgspec.json.format(data, indent=-1)


@contextmanager
def _of_one_kind() -> Iterator[None]:
    """msgspec raises errors of Python's where JSON is nested too deeply, or its text is not UTF-8."""
    try:
        yield
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
