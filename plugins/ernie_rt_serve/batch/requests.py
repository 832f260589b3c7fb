"""What a file of requests asks for; what is wrong with it is known before anything runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

import msgspec

from ernie_rt import writing
from ernie_rt.display import human_bytes, listed, shown
from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt_serve.invalid import explain
from ernie_rt_serve.structs import decode

LINE_LIMIT: Final = 64 << 20
NAMED: Final = 10
"""How many wrong lines are named; the others are counted."""


class Request(msgspec.Struct, frozen=True):
    """One line. The body stays as it is."""

    custom_id: str
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """Why a line is no request."""

    reason: str


class Ledger:
    """The `custom_id` of every request, with its line and whether it was answered: on disk, where they are many."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # a file that the system removes
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE asked (id TEXT PRIMARY KEY, line INTEGER, answered INTEGER) WITHOUT ROWID")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, id: str, line: int) -> int | None:
        """Note a request; the line of an earlier one with its id, which stays."""
        if self._execute("INSERT OR IGNORE INTO asked VALUES (?, ?, 0)", id, line).rowcount:
            return None
        return int(self._execute("SELECT line FROM asked WHERE id = ?", id).fetchone()[0])

    def answered(self, id: str) -> bool:
        """Note an answer; whether it was still to come."""
        return self._execute("UPDATE asked SET answered = 1 WHERE id = ? AND answered = 0", id).rowcount == 1

    def waits(self, id: str, line: int) -> bool:
        """Whether the request of this line is still to be answered."""
        sql = "SELECT 1 FROM asked WHERE id = ? AND line = ? AND answered = 0"
        return self._execute(sql, id, line).fetchone() is not None

    def __contains__(self, id: str) -> bool:
        return self._execute("SELECT 1 FROM asked WHERE id = ?", id).fetchone() is not None

    def _execute(self, sql: str, *values: str | int) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise writing.unkept(str(error)) from error


@dataclass(frozen=True, slots=True)
class Checked:
    """A file of requests that can be answered: how many, and the model that they name, if they do."""

    count: int
    model: str | None


def check(file: BinaryIO, where: str, ledger: Ledger, *, skip_bad: bool, say: Callable[[str], None]) -> Checked:
    """Read a file once and note its requests; FileFormatError names the lines that are none, unless they are skipped.

    OptionError when the requests name several models.
    """
    models: set[str] = set()
    wrong: list[str] = []
    count = bad = 0
    for number, line in read(file):
        reason = line.reason if isinstance(line, Bad) else None
        if isinstance(line, Request):
            earlier = ledger.add(line.custom_id, number)
            if earlier is not None:
                reason = f"the custom_id {shown(line.custom_id)} is that of line {earlier}"
            else:
                count += 1
                name = decode(line.body, _Body).model
                if name and len(models) < NAMED:
                    models.add(name)
        if reason is not None:
            bad += 1
            if len(wrong) < NAMED:
                wrong.append(f"line {number}: {reason}")
    more = f"; and {bad - len(wrong)} more" if bad > len(wrong) else ""
    if bad and not skip_bad:
        raise FileFormatError(
            "not every line is a request of its own", where=where, found="; ".join(wrong) + more,
            hint="Mend them, or let --skip-bad answer the others",
        )  # fmt: skip
    for text in wrong:
        say(f"skipped {text}")
    if more:
        say(f"skipped {bad - len(wrong)} more")
    if not count:
        raise FileFormatError("holds no request", where=where)
    if len(models) > 1:
        raise OptionError(
            "the requests name several models", where=where, found=listed(models), hint="Make a file for each"
        )
    return Checked(count, next(iter(models), None))


def waiting(file: BinaryIO, ledger: Ledger) -> Iterator[Request]:
    """The requests of a file that was checked, as far as they are still to be answered."""
    for number, line in read(file):
        if isinstance(line, Request) and ledger.waits(line.custom_id, number):
            yield line


def read(file: BinaryIO) -> Iterator[tuple[int, Request | Bad]]:
    """Every line that is not blank, counted from 1; FileFormatError when the file cannot be read."""

    def readline(limit: int) -> bytes:
        try:
            return file.readline(limit)
        except OSError as error:
            raise FileFormatError("the requests cannot be read", found=error.strerror) from error

    file.seek(0)
    number = 0
    while line := readline(LINE_LIMIT + 1):
        number += 1
        long = len(line) > LINE_LIMIT
        while long and line and not line.endswith(b"\n"):
            line = readline(LINE_LIMIT)
        if long:
            yield number, Bad(f"longer than {human_bytes(LINE_LIMIT)}")
        elif line.strip():
            yield number, _request(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _request(line: bytes) -> Request | Bad:
    try:
        request = decode(line, Request)
    except msgspec.ValidationError as error:
        return Bad(": ".join(filter(None, explain(error, Request))))
    except msgspec.MsgspecError as error:
        return Bad(str(error))
    try:
        body = decode(request.body, _Body)
    except msgspec.MsgspecError as error:
        return Bad(f"body: {error}")
    if not request.custom_id:
        return Bad("the custom_id is empty")
    if body.stream:
        return Bad("body: stream is true, and a batch has nobody to stream to")
    return request
