"""JSON that strangers wrote, as Structs: msgspec alone parses it, and here alone."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")


def decode(data: bytes | str | msgspec.Raw, kind: type[T]) -> T:
    """What JSON says, as this type; msgspec.DecodeError for what cannot be parsed, ValidationError for other types.

    The former also where msgspec raises errors of Python's: nested too deeply, text that is not UTF-8.
    """
    try:
        decoded: T = _decoder(cast(Any, kind)).decode(data)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return decoded


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
