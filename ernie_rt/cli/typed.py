"""What is typed, or piped, into a talk: lines, and messages of several lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ernie_rt.cli.output import PROMPT_LIMIT, decode_prompt, say
from ernie_rt.cli.talk import QUOTES
from ernie_rt.errors import PromptError


def next_text(read: Callable[[str], str | None]) -> str | None:
    """The next message or command: a line, or all from three quotes to the next three. None at the end of input.

    `read` is given a prompt to show and returns a line without its end, None when there is no more.
    """
    while True:
        text = read(">>> ")
        if text is None:
            return None
        while text.startswith(QUOTES) and (len(text.rstrip()) < 2 * len(QUOTES) or not text.rstrip().endswith(QUOTES)):
            more = read("... ")
            if more is None:
                break
            text = f"{text}\n{more}"
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PromptError("what was typed is not UTF-8", hint="Set the terminal to UTF-8") from None
        if text.strip():
            return text


def piped_line(prompt: str) -> str | None:
    line = sys.stdin.buffer.readline(PROMPT_LIMIT + 1)
    if len(line) > PROMPT_LIMIT:
        raise PromptError("a line is too long for a message", expected=f"at most {PROMPT_LIMIT} bytes")
    return decode_prompt(line).removesuffix("\n") if line else None


@contextmanager
def keyboard(folder: Path | None) -> Iterator[Callable[[str], str | None]]:
    """Reads lines from a terminal: with arrow keys, and the lines of former talks behind them, where there is readline.

    Each line is added to those on disk at once, so that talks side by side keep one another's.
    """
    history = None if folder is None else folder / "typed"
    readline: Any = None
    if sys.stdout.isatty():
        with suppress(ImportError):
            import readline
    if readline is not None and history is not None:
        with suppress(OSError):
            history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.read_history_file(history)

    def read(prompt: str) -> str | None:
        try:
            if not sys.stdout.isatty():
                print(prompt, end="", file=sys.stderr, flush=True)
            line = input(prompt if sys.stdout.isatty() else "")
        except EOFError:
            say("")
            return None
        if readline is not None and history is not None and line.strip():
            with suppress(OSError):
                readline.append_history_file(1, history)
        return line

    yield read
