"""One run of a writer, in a forked child: what became of it, and what it has left."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import ernie_rt
from ernie_rt.errors import ErnieRtError
from ernie_rt.weights.stamps import SWITCH
from faults.writers import OLD, Contents, Writer, contents
from support.commands import Outcome

PRODUCT: Final = Path(ernie_rt.__file__).parent


@dataclass(frozen=True, slots=True)
class Told:
    """How a run ended: the exit code (None: killed), what it said, and an exception that nobody caught."""

    code: int | None
    said: str = ""
    escaped: str = ""


_KNOWN: Final[dict[tuple[Writer, Path], tuple[Contents, set[str]]]] = {}
"""What writers write in each place when nothing fails, and all that lies there then."""


class Bench:
    """A folder in which a writer is run again and again, each time as if it were the first."""

    def __init__(self, writer: Writer, base: Path) -> None:
        self.writer = writer
        self.given = base / "given"
        self.work = base / "work"
        self.out = self.work / writer.out
        self.old: Contents = {"": OLD} if writer.replaces else {}
        if (writer, base) not in _KNOWN:
            self.clear()
            told = _here(writer, self.given, self.work)  # so that its imports are made
            assert told.code == 0 and self.found, f"{writer.name}: {told}"
            _KNOWN[writer, base] = self.found, {str(path.relative_to(self.work)) for path in self.work.rglob("*")}
        self.new, self.files = _KNOWN[writer, base]
        self.clear()

    @property
    def found(self) -> Contents:
        return contents(self.out)

    def clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if self.writer.replaces:
            self.out.write_bytes(OLD)

    def run(self, before: Callable[[], object] = lambda: None, after: Callable[[], object] = lambda: None) -> Told:
        """Run it in a child process; None for the exit code when it was killed."""
        return told(start(self.writer, self.given, self.work, before, after))

    def is_old(self) -> bool:
        return self.found == self.old

    def is_new(self) -> bool:
        try:
            return bool(self.found) and self.writer.same(self.found, self.new)
        except (ValueError, KeyError):
            return False

    def left(self) -> list[str]:
        """What lies in the folder and does not after a run that ends well."""
        return sorted({str(path.relative_to(self.work)) for path in self.work.rglob("*")} - self.files)


INTERRUPTED: Final = (130, "ernie-rt: interrupted\n", "")
Running = tuple[int, int]
"""A child process, and the pipe in which it says how it ended."""


def start(
    writer: Writer, given: Path, work: Path, before: Callable[[], object], after: Callable[[], object]
) -> Running:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        answer: tuple[int, str, str] = (1, "", "no answer")
        try:
            os.environ.update(homes(work))
            before()
            answer = _outcome(writer, given, work)
        except KeyboardInterrupt:  # before the command or behind it
            answer = INTERRUPTED
        except BaseException:
            answer = (1, "", traceback.format_exc())
        finally:
            after()
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
    os.close(writing)
    return child, reading


def _here(writer: Writer, given: Path, work: Path) -> Told:
    """In this process."""
    before = Path.cwd()
    try:
        with patch.dict(os.environ, homes(work)):
            return Told(*_outcome(writer, given, work))
    finally:
        os.chdir(before)


def homes(work: Path) -> dict[str, str]:
    """Where a user's own folders are, in variables of the environment; what was hashed is not remembered."""
    return {"XDG_CACHE_HOME": str(work / "kept/cache"), "XDG_STATE_HOME": str(work / "kept/state"), SWITCH: "0"}


def _outcome(writer: Writer, given: Path, work: Path) -> tuple[int, str, str]:
    try:
        done = writer.run(given, work)
    except ErnieRtError as error:
        return error.exit_code, f"ernie-rt: {error}", ""
    except OSError as error:  # as the command line says it
        return 1, f"ernie-rt: {error}", ""
    except BaseException as error:
        where = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, KeyboardInterrupt) and not any(path.is_relative_to(PRODUCT) for path in where):
            return INTERRUPTED  # in what the tests do before the command or behind it
        return 1, "", traceback.format_exc()
    return (int(str(done.code)), done.err, "") if isinstance(done, Outcome) else (0, "", "")


def told(running: Running) -> Told:
    child, reading = running
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return Told(*json.loads(answer)) if answer else Told(None)
