"""What is typed, or piped, into a talk: messages of a line, and of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ernie_rt.cli.prompts import PROMPT_LIMIT, WIDE, decode, decode_prompt
from ernie_rt.cli.talk import QUOTES
from ernie_rt.errors import PromptError


def next_text(read: Callable[[str], str | None]) -> str | None:
    """The next message or command: a line, or all from three quotes to the next three. None at the end of input.

    `read` is given a prompt to show and returns a line without its end, None when there is no more. PromptError for
    what is no text, and where the input ends between the quotes.
    """
    while True:
        text = read(">>> ")
        if text is None:
            return None
        quoted = text.rstrip()
        if text.startswith(QUOTES) and (len(quoted) < 2 * len(QUOTES) or not quoted.endswith(QUOTES)):
            lines = [text]
            while len(lines) == 1 or not lines[-1].rstrip().endswith(QUOTES):
                more = read("... ")
                if more is None:
                    raise PromptError(f"the input ended before the closing {QUOTES}", hint="What was begun is not sent")
                lines.append(more)
            text = "\n".join(lines)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PromptError("what was typed is not UTF-8", hint="Set the terminal to UTF-8") from None
        if text.strip():
            return text


@contextmanager
def piped(stream: BinaryIO) -> Iterator[Callable[[str], str | None]]:
    """Reads the lines of a file or pipe, whichever system wrote them."""
    lines = _lines(stream)
    yield lambda prompt: next(lines, None)


def _lines(stream: BinaryIO) -> Iterator[str]:
    line = stream.readline(PROMPT_LIMIT + 1)
    if line.startswith(tuple(WIDE)):  # whose lines end in more bytes than one
        text = decode_prompt(_checked(line + stream.read(PROMPT_LIMIT + 1 - len(line))))
        yield from text.removesuffix("\n").split("\n")
        return
    while line:
        yield decode(_checked(line)).removesuffix("\n")
        line = stream.readline(PROMPT_LIMIT + 1)


def _checked(data: bytes) -> bytes:
    if len(data) > PROMPT_LIMIT:
        raise PromptError("a line is too long for a message", expected=f"at most {PROMPT_LIMIT} bytes")
    return data
