"""JSON that strangers wrote: how large and deep it may be is judged at once, each value where it is read."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from ernie_rt.errors import JsonError

UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")

MOST_SIGNS: Final = 1 << 18
"""Commas and opening brackets in a file of a model: each value takes one. The largest ERNIE's header, were it one file,
would have 170,000; and what takes three bytes here, such as `[],`, takes two hundred in memory."""

SURELY_FINITE: Final = 308
"""Characters of an integer from which on it may be beyond float64."""

NUMBERS: Final = frozenset({int, float, bool, type(None)})
"""Types of values in which nothing is to be found."""


class Unusable:
    """Stands for a value that JSON libraries write and that no reader takes.

    That is NaN, an infinity, a number beyond float64, the value of a key that occurs twice, text that is not Unicode.
    Whoever asks for its type finds none that it wants, and `repr` says the reason; any other use raises a JsonError.
    """

    __slots__ = ("what", "where")

    def __init__(self, what: str, where: str) -> None:
        self.what = what
        self.where = where

    def __repr__(self) -> str:
        return self.what

    def refuse(self, *_: object) -> NoReturn:
        raise JsonError(self.what, where=self.where)

    __bool__ = __len__ = __iter__ = __str__ = __hash__ = refuse
    __eq__ = __contains__ = __getitem__ = refuse


def parse_json(data: bytes, *, where: str, depth: int = 64, strict: bool = True, signs: int | None = None) -> Any:
    """Parse UTF-8 JSON that a stranger wrote, a byte order mark or none; JsonError names `where` and the reason.

    Nesting goes no deeper than `depth`; the caller bounds the size, and how many `signs` there are, commas and opening
    brackets, those within strings too. What is `Unusable` is refused when `strict`, and else where somebody reads it.
    """
    if data.startswith(UTF_16) or b"\0" in data[:2]:
        raise JsonError(
            "not UTF-8", where=where, found="UTF-16, as Windows PowerShell writes it", hint="Save it as UTF-8"
        )
    if signs is not None and (count := sum(map(data.count, (b",", b"[", b"{")))) > signs:
        raise JsonError("too many values", where=where, expected=f"at most {signs} commas and brackets", found=count)

    def unusable(what: str) -> Unusable:
        if strict:
            raise JsonError(what, where=where)
        return Unusable(what, where)

    def integer(text: str) -> int | Unusable:
        if len(text) < SURELY_FINITE:
            return int(text)
        number = real(text)
        return number if isinstance(number, Unusable) else int(text)

    def real(text: str) -> float | Unusable:
        number = float(text)
        if math.isfinite(number):
            return number
        return unusable(f"the number {text if len(text) <= 40 else f'{text[:40]}…'} is beyond float64")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            result[key] = unusable(f"the key {key[:80]!a} occurs twice") if key in result else value
        return result

    def settle(tree: Any) -> None:
        """Bound the depth, and find the text that is not Unicode."""
        level: list[Any] = [[tree]]
        for _ in range(depth + 1):
            below: list[Any] = []
            for container in level:
                if isinstance(container, list) and NUMBERS.issuperset(map(type, container)):
                    continue
                for key, value in container.items() if isinstance(container, dict) else enumerate(container):
                    if (isinstance(key, str) and not is_text(key)) or (isinstance(value, str) and not is_text(value)):
                        value = container[key] = unusable(f"a lone surrogate in the text at {key!a:.80}")
                    if isinstance(value, Unusable) and isinstance(key, str):
                        value.where = f"{where}: {key[:80]}"
                    elif isinstance(value, dict | list):
                        below.append(value)
            if not below:
                return
            level = below
        raise JsonError(f"nested more than {depth} levels deep", where=where)

    try:
        tree = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=members,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda text: unusable(f"{text} is not a JSON number"),
        )
    except RecursionError:
        raise JsonError("nested too deeply", where=where, expected=f"at most {depth} levels") from None
    except UnicodeDecodeError as error:
        raise JsonError("not UTF-8", where=where, found=f"{error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise JsonError("malformed JSON", where=where, found=found) from None
    settle(tree)
    return tree


def is_text(text: str) -> bool:
    """Whether a string is Unicode text: JSON can spell half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def usable(value: Any) -> Any:
    """A copy of a parsed value without what is `Unusable` in it, for a file that others will read."""
    if isinstance(value, dict):
        return {key: usable(each) for key, each in value.items() if not isinstance(each, Unusable)}
    if isinstance(value, list):
        return [usable(each) for each in value if not isinstance(each, Unusable)]
    return value
