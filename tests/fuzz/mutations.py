"""Changes that keep an input nearly right, so that it gets past the first check: of bytes, JSON, protobuf and text."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from support.protobuf import varint

BORDERS: Final = (
    0, 1, 2, 7, 8, 127, 128, 255, 256, 1023, 1024, 4096, 32767, 32768, 65535, 65536, (1 << 24) - 1, 1 << 24,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Integers at which some size or sign ends."""

MALFORMED: Final = (
    "1e999", "-1e999", "01", "1.", "'a'", "1,", "", "tru", "/**/1", '"\\x"', "-", "[1,]", "{,}", "9" * 5000,
)  # fmt: skip
"""Spellings of JSON values that are none, or none that float64 has."""

CHARACTERS: Final = "\0\t\n\"'\\{}\x7f\uffff\U0010ffff"

TEXTS: Final = (
    "", " ", "a", "0", "-1", "null", "true", "NaN", "é", "e\u0301", "汉字", "😀", "\ufeff", "\u202e", "\u2028", "\0",
    "\n", "\x1b[2J", "\x1b]52;c;eA==\x07", "\ud800", "\udfff", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..",
    ".", "C:\\x", "file:///etc/passwd", "https://example.com/x", "{{ 7 * 7 }}", "{% for x in y %}", "%s%n",
    "$(touch x)", "<s>", "</s>", "<|endoftext|>", "<mask:4>", "x" * 300, "é" * 5000,
)  # fmt: skip
"""Texts that somebody might take for something else."""

NUMBERS: Final = (
    0, 1, -1, 2, 3, 16, 255, 256, 65536, 1 << 31, -(1 << 31), 1 << 32, 1 << 53, 1 << 63, 1 << 64, 10**30, 10**400, 0.0,
    -0.0, 0.5, 1.5, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip


class Raw:
    """A JSON value in its own spelling: what no value of Python becomes."""

    def __init__(self, text: str) -> None:
        self.text = text


def value(rng: Random, depth: int = 0) -> Any:
    """A JSON value of any type."""
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind < 8:
        return rng.choice((None, True, False))
    if kind == 8 and depth < 3:
        return [value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 100)) >> depth)]
    if kind == 9 and depth < 3:
        return {rng.choice(TEXTS): value(rng, depth + 1) for _ in range(rng.randrange(3))}
    if kind == 10 and depth == 0:
        deep = rng.choice((3, 30, 63, 64, 65, 1000, 100_000))
        return Raw(rng.choice(("[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "[" * deep)))
    if kind == 11 and depth == 0:
        return Raw(
            rng.choice(("1e999", "-1e999", "01", "1.", "'a'", "1,", "", "tru", "/**/1", '"\\x"', "-", "9" * 5000))
        )
    return rng.randrange(-10, 1000)


def changed(rng: Random, tree: Any, times: int = 1, among: Callable[[Random], Any] = value) -> Any:
    """A JSON value with changes at random places."""
    holder = [copy.deepcopy(tree)]
    for _ in range(times):
        container, key = _place(rng, holder)
        _change(rng, container, key, among)
    return holder[0]


def _place(rng: Random, tree: Any) -> tuple[Any, Any]:
    """A container somewhere in a tree, and one of its keys."""
    container, key = tree, 0
    while rng.random() < 0.8:
        inner = container[key]
        if isinstance(inner, dict) and inner:
            container, key = inner, rng.choice(list(inner))
        elif isinstance(inner, list) and inner:
            container, key = inner, rng.randrange(len(inner))
        else:
            break
    return container, key


def _change(rng: Random, container: Any, key: Any, among: Callable[[Random], Any]) -> None:
    how = rng.randrange(12)
    old = container[key]
    if how < 5:
        container[key] = among(rng)
    elif how == 5 and isinstance(old, int | float) and not isinstance(old, bool):
        container[key] = rng.choice(
            (-old, old + 1, old - 1, old * 2, old / 2 if abs(old) < 1 << 64 else 0, str(old), [old])
        )
    elif how == 6 and isinstance(container, dict):
        del container[key]
    elif how == 7 and isinstance(container, dict):
        container[rng.choice((rng.choice(TEXTS), str(key) + "x", str(key).upper()))] = container.pop(key)
    elif how == 8 and isinstance(container, dict):
        container[key] = Raw(f"{dumped(old)}, {json.dumps(key)}: {dumped(rng.choice((old, among(rng))))}")
    elif how == 9 and isinstance(container, list):
        container.insert(key, rng.choice((copy.deepcopy(old), among(rng))))
    elif how == 10 and isinstance(container, list) and container:
        del container[key]
        if not container:
            container.append(old)
    elif how == 11:
        container[key] = rng.choice(([old], {"a": old}, None))
    else:
        container[key] = among(rng)


def dumped(tree: Any) -> str:
    """JSON, what is `Raw` in its own spelling."""
    raw: list[str] = []

    def stand_in(each: Any) -> str:
        raw.append(each.text)
        return f"\x01raw{len(raw) - 1}\x01"

    text = json.dumps(tree, default=stand_in)
    for index, spelt in enumerate(raw):
        text = text.replace(f'"\\u0001raw{index}\\u0001"', spelt)
    return text


def json_bytes(rng: Random, tree: Any) -> bytes:
    """A file of JSON: now and then in another encoding, or not quite JSON."""
    data = dumped(tree).encode(errors="surrogatepass")
    match rng.randrange(40):
        case 0:
            return b"\xef\xbb\xbf" + data
        case 1:
            return data.decode(errors="replace").encode("utf-16", "surrogatepass")
        case 2:
            return damaged(rng, data)
        case 3:
            return foreign(rng) + data
    return data


def foreign(rng: Random) -> bytes:
    """What lies where a model's file should, when a download went wrong or somebody wants to run code."""
    return rng.choice(
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", b"<!doctype html><html>", b"PK\x03\x04", b"",
         b"\x80\x02}q\x00.", b"\x80\x04\x95\x1a", b"\xff\xfe{\0", b"\0" * 64, b"GGUF", b"[", b'"a"', b"1")
    )  # fmt: skip


def damaged(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bytes with one to three changes; `others` are further good inputs, of which pieces may come in."""
    changing = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(changing) + 1)
        size = min(rng.choice((1, 1, 2, 4, 8, 16, 64)), len(changing) - at)
        match rng.randrange(9):
            case 0 if at < len(changing):
                changing[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changing):
                changing[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del changing[at : at + size]
            case 3:
                changing[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
            case 4:
                changing[at:at] = changing[at : at + size] * rng.choice((1, 2, 100))
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = (rng.choice(BORDERS) + rng.choice((-1, 0, 0, 1))) % (1 << 8 * width)
                changing[at : at + width] = number.to_bytes(width, rng.choice(("little", "little", "big")))
            case 6:
                other = rng.choice(others) if others else data
                begin = rng.randrange(len(other) + 1)
                changing[at:] = other[begin:] if rng.random() < 0.5 else other[begin : begin + size]
            case 7:
                del changing[at:]
            case _:
                changing[at : at + size] = bytes(size)
    return bytes(changing)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise ValueError


Field = tuple[int, int, Any]
"""A field of protobuf: its number, its wire type, and an integer or bytes."""


def fields(data: bytes) -> list[Field]:
    """The fields of a message; ValueError or IndexError where it is none."""
    return list(_parsed(data)[0])


@functools.lru_cache(maxsize=4096)
def _parsed(data: bytes) -> tuple[tuple[Field, ...], tuple[int, ...]]:
    """The fields, and where each begins and the last one ends."""
    found: list[Field] = []
    places = [0]
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            content, at = _read_varint(data, at)
            found.append((number, wire, content))
        else:
            size = {1: 8, 5: 4}.get(wire, -1)
            if wire == 2:
                size, at = _read_varint(data, at)
            if size < 0 or at + size > len(data) or number == 0:
                raise ValueError
            found.append((number, wire, data[at : at + size]))
            at += size
        places.append(at)
    return tuple(found), tuple(places)


def message(found: Sequence[Field]) -> bytes:
    """The bytes of fields."""
    parts = []
    for number, wire, content in found:
        parts.append(varint(number << 3 | wire))
        if isinstance(content, int):
            parts.append(varint(content))
        else:
            parts += [varint(len(content)), content] if wire == 2 else [content]
    return b"".join(parts)


def changed_message(rng: Random, data: bytes, depth: int = 0) -> bytes:
    """A protobuf message with one change, somewhere in its fields or those of a message within."""
    try:
        found, places = _parsed(data)
    except (ValueError, IndexError):
        found = ()
    if not found:
        return damaged(rng, data) if rng.random() < 0.5 else rng.choice(TEXTS).encode(errors="surrogatepass")
    # By kind first, since a list of thousands would hide the other fields.
    kind = rng.choice(sorted({number for number, _, _ in found}))
    at = rng.choice([index for index, each in enumerate(found) if each[0] == kind])
    begin, end = places[at : at + 2]
    return data[:begin] + _changed_field(rng, found, at, data[begin:end], depth) + data[end:]


def _changed_field(rng: Random, found: Sequence[Field], at: int, written: bytes, depth: int) -> bytes:
    """What stands in the place of a field, which is `written` so."""
    number, wire, content = found[at]
    if wire == 2 and depth < 12 and rng.random() < 0.75:
        return message([(number, wire, changed_message(rng, content, depth + 1))])
    other = rng.choice(found)
    match rng.randrange(9):
        case 0:
            return b""
        case 1:
            return written * rng.choice((2, 2, 3, 50))
        case 2:
            return written + message([other])
        case 3:
            return message([(rng.choice((number + 1, rng.randrange(1, 30), (1 << 29) - 1)), wire, content)])
        case 4:
            return message([(number, 0, rng.choice(BORDERS))])
        case 5:
            return varint(number << 3 | 2) + varint(rng.choice(BORDERS)) + written
        case 6:
            return message([(number, other[1], other[2])])
        case 7 if wire == 2:
            return message([(number, 2, rng.choice(TEXTS).encode(errors="surrogatepass"))])
        case _ if wire == 0:
            return message([(number, 0, rng.choice((*BORDERS, content + 1, content - 1, rng.randrange(64))))])
        case _:
            return message([(number, wire, rng.randbytes(len(content)) if wire != 2 else damaged(rng, content))])


def changed_text(rng: Random, text: str) -> str:
    """A text with one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(5):
            case 0:
                text = text[:at] + rng.choice(TEXTS) + text[at:]
            case 1:
                text = text[:at] + text[min(end, at + 8) :]
            case 2:
                text = text[:at] + text[at : at + 16] * rng.choice((2, 3, 50)) + text[at:]
            case 3:
                text = text[:at] + rng.choice(CHARACTERS) + text[at + 1 :]
            case _:
                text = text[:at] + text[end:] + text[at:end]
    return text[:100_000]
