"""What the commands share: answers out, remarks aside, sizes, peak memory."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from shutil import get_terminal_size
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import typer

from ernie_rt.display import columns
from ernie_rt.errors import OptionError, WriteError

if TYPE_CHECKING:
    from ernie_rt.generation.stream import Piece

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing them, those that turn text around included; newlines and tabs
aside."""
HEAT = (245, 61, 67, 73, 107, 143, 179, 173, 167)
"""Colours of a terminal from cold to hot, the first for nothing at all; they can be read on black and on white."""
SCALES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def settle_streams() -> None:
    """From now on what is written is UTF-8, whatever the machine's habit; a terminal of another encoding keeps its own.

    What such a terminal lacks is written as an escape, and that is said once. A stream that the caller closed swallows
    what it is given.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            if stream.isatty() and codecs.lookup(stream.encoding).name != "utf-8":
                codecs.register_error(f"ernie-rt {name}", _Escape(stream.encoding))
                stream.reconfigure(errors=f"ernie-rt {name}")
            else:
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


class _Escape:
    """Writes what a terminal lacks as escapes, and says so at the first."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._said = False

    def __call__(self, error: UnicodeError) -> tuple[str | bytes, int]:
        if not self._said:
            self._said = True
            say(f"this terminal shows {self._encoding} alone: other characters are written as escapes; set it to UTF-8")
        return codecs.backslashreplace_errors(error)


def write(text: str, *, painted: bool = False) -> None:
    """Put text on standard output at once; when its reader has left, the command ends quietly, with exit code 0.

    Whatever it came from, it steers no terminal; unless it is `painted`: then whoever did that has made it safe before.
    """
    out = getattr(sys.stdout, "answers", sys.stdout)
    try:
        print(text if painted else safe(text, out), end="", flush=True, file=out)
    except OSError as error:
        abandon(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise typer.Exit from None
        raise WriteError("standard output cannot be written", found=error.strerror) from error


def abandon(stream: TextIO) -> None:
    """Let a stream lead nowhere: what is still in its buffer would fail once more when the interpreter ends."""
    with suppress(OSError, ValueError):  # no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(rows: Sequence[Sequence[str]]) -> None:
    """Put rows on standard output as columns that fit the terminal, if it is one."""
    write(columns(rows, screen_width()) + "\n")


def screen_width() -> int | None:
    """The columns of the terminal that standard output is, or None."""
    out = getattr(sys.stdout, "answers", sys.stdout)
    return get_terminal_size().columns if out.isatty() else None


def colourful() -> bool:
    """Whether standard output is a terminal that has colours, and nobody asked for none (https://no-color.org)."""
    return screen_width() is not None and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def heat(text: str, level: int) -> str:
    """The text in a colour of HEAT."""
    return f"\x1b[38;5;{HEAT[level]}m{text}\x1b[39m"


@contextmanager
def answers_alone() -> Iterator[None]:
    """In the block standard output takes what `write` gives it; what anybody else prints goes to standard error.

    A backend may print when it runs, and what a program reads from a command must stay whole.
    """
    with redirect_stdout(_Aside(sys.stdout)):
        yield


class _Aside(io.TextIOBase):
    """Standard output to those who ask about it, standard error to those who print; `answers` is the real one."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return self.answers.isatty()

    def fileno(self) -> int:
        return self.answers.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # `input` wants to know
        return self.answers.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.answers.errors


def animated(stream: TextIO) -> bool:
    """Whether what is shown may be changed afterwards: a terminal, and one that knows how."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line at the bottom of a terminal that says what is being done; nothing elsewhere.

    What is told takes the place of what was told before, and the line goes with the block.
    """
    if not animated(sys.stderr):
        yield lambda text: None
        return

    def tell(text: str) -> None:
        width = get_terminal_size().columns - 1
        _aside(f"\r\x1b[K{safe(text, sys.stderr)[:width]}")

    try:
        yield tell
    finally:
        _aside("\r\x1b[K")


def say(text: str) -> None:
    """A line on standard error, which steers no terminal."""
    _aside(safe(text, sys.stderr) + "\n")


def _aside(text: str) -> None:
    """Put text on standard error; when nobody reads it, the work goes on without."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


class AnswerWriter:
    """Shows an answer piece by piece: text and tool calls on standard output, reasoning on standard error, dimmed.

    On a terminal nothing that a model wrote can steer it. At the end of the block, the answer's last line ends.
    """

    def __init__(self) -> None:
        self._kind = ""  # of what is being shown
        self._last = ""  # of what was last shown on standard output

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enter("")
        if error is None or isinstance(error, KeyboardInterrupt):
            write("\n")

    def show(self, piece: Piece) -> None:
        if piece.reasoning:
            self._enter("reasoning")
            _aside(safe(piece.reasoning, sys.stderr))
        if piece.text:
            self._enter("text")
            write(piece.text)
        for call in piece.tool_calls:
            self._enter("")
            self._enter("tool call")
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
            write(f"tool call: {call.name} {arguments}")

    def _enter(self, kind: str) -> None:
        """Begin text of a kind: on a new line next to a tool call, dimmed for reasoning."""
        styled = animated(sys.stderr) and not os.environ.get("NO_COLOR")
        dim, plain = ("\x1b[2m", "\x1b[0m") if styled else ("", "")
        if kind == self._kind:
            return
        if self._kind == "reasoning":
            _aside(f"{plain}\n")
        if kind == "reasoning":
            _aside(dim)
        if kind in ("text", "tool call"):
            if self._last and "tool call" in (kind, self._last):
                write("\n")
            self._last = kind
        self._kind = kind


def safe(text: str, stream: TextIO) -> str:
    """The text without what would steer a terminal, if the stream is one."""
    return STEERING.sub("", text) if stream.isatty() else text


def parse_size(text: str) -> int:
    """`32k`, `4096`, `12GiB`: a whole number, scaled by 1,024 for each step; OptionError otherwise."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise OptionError("not a size", expected="a number such as 4096, 32k or 12GiB", found=repr(text[:40]))
    return round(float(match[1]) * SCALES[match[2]])


class PeakMemory:
    """The largest anonymous memory of a process, this one if no id is given, while the block runs, in bytes; 0 where
    the system does not say.

    File pages that happen to be mapped do not count. Looked at every 20 milliseconds, by a thread.
    """

    def __init__(self, process: int | None = None) -> None:
        self.nbytes = 0
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> int:
        """The peak so far."""
        self.nbytes = max(self.nbytes, anonymous_bytes(self._process))
        return self.nbytes

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.look()


def anonymous_bytes(process: int | None = None) -> int:
    try:
        for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
