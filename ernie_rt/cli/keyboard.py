"""Lines that a person types or pastes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from ernie_rt.cli.output import say
from ernie_rt.errors import PromptError
from ernie_rt.home import is_private

CANONICAL: Final = 4095
"""Bytes of a line that a terminal of Linux hands over while it edits lines by itself; it drops the rest."""


@contextmanager
def keyboard(history: Path | None = None) -> Iterator[Callable[[str], str | None]]:
    """Reads lines from the terminal that standard input is, whole, with arrow keys and former lines where there is
    readline; what is pasted at once is one line, whatever ends of lines are in it.

    What is read is given a prompt to show, and is None at the end of input. Each line is added to the `history` on disk
    at once, so that talks side by side keep one another's. A line that is typed early, inside the block, waits.
    """
    readline: Any = None
    if os.name == "posix":  # elsewhere the terminal edits lines of any length
        with suppress(ImportError):
            import readline
    if readline is not None:
        # The last three: what is typed is UTF-8, in the C locale as well, and no command of an editor.
        for setting in ("enable-bracketed-paste on", "convert-meta off", "input-meta on", "output-meta on"):
            readline.parse_and_bind(f"set {setting}")
        if history is not None:
            with suppress(OSError):
                history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                history.touch(mode=0o600, exist_ok=False)  # which follows no link
            if _is_mine(history):
                with suppress(OSError):
                    readline.read_history_file(history)
            else:
                history = None

    def read(prompt: str) -> str | None:
        try:
            with nullcontext() if readline is None else _answers_elsewhere():
                line = input(prompt)
        except EOFError:
            say("")
            return None
        if readline is None and os.name == "posix" and len(line.encode(errors="replace")) >= CANONICAL:
            raise PromptError("the terminal cuts lines this long", hint="Put the text into a file, and pipe that in")
        if readline is not None and history is not None and line.strip():
            with suppress(OSError):
                readline.append_history_file(1, history)
        return line

    with nullcontext() if readline is None else _typed_ahead():
        yield read


def _is_mine(history: Path) -> bool:
    """Whether it is a file of this user alone, that leads nowhere: not a pipe, say, which nobody writes to."""
    try:
        status = history.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and is_private(status)


@contextmanager
def _answers_elsewhere() -> Iterator[None]:
    """Let standard output's file descriptor lead to the terminal, or `input` would edit no lines and cut long ones."""
    if os.isatty(1):
        yield
        return
    sys.stdout.flush()
    kept, terminal = os.dup(1), os.open(os.ttyname(0), os.O_WRONLY | os.O_NOCTTY)
    os.dup2(terminal, 1)
    os.close(terminal)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _typed_ahead() -> Iterator[None]:
    """Keep what is typed between two readings: a terminal that hands over lines drops what is beyond its limit."""
    import termios

    before = termios.tcgetattr(0)
    now = termios.tcgetattr(0)
    now[3] &= ~termios.ICANON
    now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
    termios.tcsetattr(0, termios.TCSANOW, now)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)
