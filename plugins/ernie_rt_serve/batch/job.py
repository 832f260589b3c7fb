"""A whole batch: its requests checked, what was answered before known, the rest answered."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from ernie_rt import files, writing
from ernie_rt.errors import OptionError
from ernie_rt_serve.batch.answers import Answer, AnswerFile
from ernie_rt_serve.batch.requests import Ledger, check, waiting
from ernie_rt_serve.batch.run import Respond, Tally, answer_all

Write = Callable[[bytes], None]
STREAM = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Where requests come from and answers go to; `-` is standard input or output, from which nothing can be resumed.

    Answers that are errors go to `errors`, where that is given, and not among the others.
    """

    requests: Path
    answers: Path
    errors: Path | None = None
    concurrency: int = 64
    ordered: bool = False
    skip_bad: bool = False


class Batch:
    """A job that is under way: in its `with` block the files of answers are its own.

    Entering raises what is wrong with its files, before anything is answered.
    """

    def __init__(self, job: Job, stdout: Write, say: Callable[[str], None]) -> None:
        self.job = job
        self.tally = Tally()
        """Of this run alone."""
        self._stdout = stdout
        self._say = say
        self._stack = ExitStack()

    def __enter__(self) -> Batch:
        job = self.job
        if job.errors == job.answers:
            raise OptionError("--errors names the file of the answers", hint="Leave it out: errors lie among them then")
        with self._stack:
            self._file = self._stack.enter_context(_opened(job.requests))
            self._ledger = self._stack.enter_context(Ledger())
            where = "standard input" if job.requests == STREAM else str(job.requests)
            checked = check(self._file, where, self._ledger, skip_bad=job.skip_bad, say=self._say)
            self.model = checked.model
            """The one that the requests name, if they do."""
            self.total = checked.count
            self.found = self._failed = 0
            """Answers of former runs."""
            self._answers = self._sink(job.answers)
            self._errors = self._answers if job.errors is None else self._sink(job.errors)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    async def run(self, respond: Respond, progress: Callable[[Tally], None]) -> None:
        """Answer what is still to be answered; `progress` is told of each answer."""

        def write(answer: Answer) -> None:
            sink = self._errors if answer.failed else self._answers
            sink(msgspec.json.encode(answer) + b"\n")
            self.tally.add(answer)
            progress(self.tally)

        requests = waiting(self._file, self._ledger)
        await answer_all(requests, respond, write, concurrency=self.job.concurrency, ordered=self.job.ordered)

    @property
    def left(self) -> int:
        """Requests without an answer."""
        return self.total - self.found - self.tally.answered

    @property
    def failed(self) -> int:
        """Answers that are errors, of former runs too."""
        return self._failed + self.tally.failed

    def _sink(self, path: Path) -> Write:
        if path == STREAM:
            return self._stdout
        file = self._stack.enter_context(AnswerFile(path, self._ledger))
        self.found += file.found
        self._failed += file.failed
        return file.write


def _opened(path: Path) -> BinaryIO:
    """A file of requests, which is read twice: standard input is kept in a file meanwhile."""
    if path != STREAM:
        return files.open_readonly(path)
    try:
        with ExitStack() as opened:
            kept = opened.enter_context(writing.temporary_file())
            shutil.copyfileobj(sys.stdin.buffer, kept)
            kept.flush()
            opened.pop_all()
            return kept
    except OSError as error:
        raise writing.unkept(error.strerror) from error
