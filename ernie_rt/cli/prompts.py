"""The ways in which a text reaches a command: as an argument, from a file, on standard input."""

from __future__ import annotations

import codecs
import os
import re
import sys
from pathlib import Path
from typing import Final

from ernie_rt.errors import PromptError

PROMPT_LIMIT: Final = 64 << 20
WIDE: Final = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks of encodings other than UTF-8, as PowerShell's `>` writes them; the first that fits says which."""

ESCAPED: Final = re.compile(r"[\udc80-\udcff]")
"""Bytes of an argument that the locale does not know."""


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from wherever it was given, of which `-` is standard input; PromptError when from two, or none."""
    if prompt is not None and file is not None:
        raise PromptError("a prompt was given twice", found="an argument and --file", hint="Leave one out")
    if file == Path("-"):
        prompt, file = "-", None
    if file is not None:
        from ernie_rt import files

        return decode_prompt(files.read_bytes(file, PROMPT_LIMIT))
    if prompt not in (None, "-"):
        assert prompt is not None
        return from_argument(prompt)
    if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
        raise PromptError("no prompt", hint="Give it as an argument, by --file, or on standard input")
    if sys.stdin.isatty():
        from ernie_rt.cli.keyboard import keyboard

        with keyboard() as read:
            return "".join(f"{line}\n" for line in iter(lambda: read(""), None))
    data = sys.stdin.buffer.read(PROMPT_LIMIT + 1)
    if len(data) > PROMPT_LIMIT:
        raise PromptError("standard input is too long for a prompt", expected=f"at most {PROMPT_LIMIT} bytes")
    return decode_prompt(data)


def from_argument(text: str) -> str:
    """Text that was given as an argument: UTF-8, also where the locale is another; PromptError when it is none."""
    return decode_prompt(os.fsencode(text)) if ESCAPED.search(text) else as_unix(text)


def decode_prompt(data: bytes) -> str:
    """Text that somebody gave, in UTF-8 or what its byte order mark says; PromptError when it is none."""
    return decode(data, next((encoding for mark, encoding in WIDE.items() if data.startswith(mark)), "utf-8"))


def decode(data: bytes, encoding: str = "utf-8") -> str:
    """Text of this encoding as Unix would have written it; PromptError when it is none."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise PromptError(
            f"the prompt is not {encoding.upper()}", found=f"byte {data[error.start]:#04x} at {error.start}"
        ) from None
    if "\0" in text:
        raise PromptError("the prompt has null characters, as UTF-16 without a mark does", hint="Save it as UTF-8")
    return as_unix(text)


def as_unix(text: str) -> str:
    """The text without a byte order mark, its lines ending as on Unix; a last `\\r` is what a shell left of an end."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\r")
