"""Answers in a file: whole lines, one to a request, however often a run was killed."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import msgspec

from ernie_rt import writing
from ernie_rt.display import shown
from ernie_rt.errors import FileFormatError, WriteError
from ernie_rt.files import MIB
from ernie_rt_serve.batch.requests import LINE_LIMIT, Ledger
from ernie_rt_serve.structs import decode, on_one_line

SYNC_SECONDS: Final = 2.0
"""How often what was written is made to last: a machine that loses its power may lose the answers of so long."""
BEGINNING: Final = b'{"id":"batch_req_'
"""Of every line: what is dropped as torn was ours."""


class Response(msgspec.Struct, frozen=True):
    status_code: int
    request_id: str
    body: msgspec.Raw


class Error(msgspec.Struct, frozen=True):
    """Why there is no response at all."""

    code: str
    message: str


class Answer(msgspec.Struct, frozen=True):
    """One line of OpenAI's output files, and of those with errors."""

    id: str
    custom_id: str
    response: Response | None
    error: Error | None

    @property
    def failed(self) -> bool:
        return self.response is None or self.response.status_code >= 400


def answer_of(custom_id: str, request_id: str, outcome: tuple[int, bytes] | Error) -> Answer:
    """An answer from a status and a body, which becomes a string when it is no JSON."""
    id = f"batch_req_{uuid.uuid4().hex}"
    if isinstance(outcome, Error):
        return Answer(id, custom_id, None, outcome)
    status, body = outcome
    try:
        whole = on_one_line(body)
    except msgspec.DecodeError:
        whole = msgspec.json.encode(body.decode("utf-8", "replace"))
    return Answer(id, custom_id, Response(status, request_id, msgspec.Raw(whole)), None)


class AnswerFile:
    """A file that answers are appended to, held by one process at a time. Use it in a `with` block.

    What a former run left in it is noted in the ledger, and its last line dropped if that was torn. FileFormatError,
    and nothing is changed, when it holds anything but answers to this batch.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.found = 0
        """Answers of former runs."""
        self.failed = 0
        """Those of them that are errors."""
        self._path = path
        self._ledger = ledger

    def __enter__(self) -> AnswerFile:
        if self._path.exists() and not self._path.is_file():
            raise WriteError("not a regular file", where=str(self._path), hint="Standard output is -")
        try:
            with ExitStack() as opened:
                self._file = opened.enter_context(self._path.open("ab"))
                opened.enter_context(writing.locked(self._path))
                self._file.truncate(self._recover())
                self._opened = opened.pop_all()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise WriteError("cannot be written", where=str(self._path), found=reason) from error
        self._synced = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._opened:
                os.fsync(self._file.fileno())
        except OSError as failure:
            if error is None:
                raise self._unwritten(failure) from failure

    def write(self, line: bytes) -> None:
        """Append a line. Once this returns, no kill of this process can lose it."""
        try:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> WriteError:
        hint = "Answers before it are safe: make room, and give the same command again"
        return WriteError("an answer cannot be written", where=str(self._path), found=error.strerror, hint=hint)

    def _recover(self) -> int:
        """Note the answers that are there; where the last whole line ends."""
        end = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), 1):
                if b"\0" in line:  # as after a loss of power: what was not synced may have become zeros
                    begun = line.partition(b"\0")[0]
                    torn = BEGINNING.startswith(begun) and _zeros(line[len(begun) :], file)
                    if not (end or begun.startswith(BEGINNING) or torn):
                        raise self._foreign(number, "null characters")
                    return end
                if line.endswith(b"\n"):
                    self._note(number, line)
                    end += len(line)
                elif not (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
                    raise self._foreign(number, "an unfinished line that is no answer")
        return end

    def _note(self, number: int, line: bytes) -> None:
        try:
            answer = decode(line, Answer)
        except msgspec.MsgspecError as error:
            raise self._foreign(number, str(error)) from None
        if answer.custom_id not in self._ledger:
            raise self._foreign(number, f"an answer to {shown(answer.custom_id)}, which is not asked")
        if not self._ledger.answered(answer.custom_id):
            raise self._foreign(number, f"a second answer to {shown(answer.custom_id)}")
        self.found += 1
        self.failed += answer.failed

    def _foreign(self, number: int, found: str) -> FileFormatError:
        return FileFormatError(
            "not a file of answers to these requests", where=f"{self._path}, line {number}", found=found,
            hint="Name another file, or move this one away",
        )  # fmt: skip


def _zeros(line: bytes, file: BinaryIO) -> bool:
    """Whether a line and all that comes after it are nothing but zeros."""
    return not any(piece.strip(b"\0") for piece in chain([line], iter(partial(file.read, MIB), b"")))
