"""Every call on a file fails in turn, for each writer.

A run in which one failed says so in one line that names a path and the reason, leaves what was there before and no file
of its own; the next one ends well. What cannot be seen from outside does not count as a fault: a run that goes on and
writes all that it should.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from faults.calls import SHORT, Calls
from faults.trials import Bench, Told
from faults.writers import Writer, contents

ERRORS: Final = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES, "EINTR": errno.EINTR, "short": SHORT}
UNDONE: Final = ("unlink", "close", "stat", "list", "open", "flock", "fsync")
"""Calls whose failing may leave a file that is of no use: the next run takes it away."""

QUICK: Final = 8
"""Of writers of one file, which take no time, so many times more calls fail in a share."""
SLOW: Final = 5
"""Of slow writers, whose files are written by what others test, one call in so many fails."""


def failing(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words: each call fails with one of the errors, those of writers of one file with all; with
    a `share` one call in so many."""
    figures: Counter[str] = Counter()
    faults: list[str] = []
    before = contents(base / "given")
    for writer in writers:
        bench = Bench(writer, base)
        with Calls(base) as calls:
            faults += _in_turn(bench, calls, base, share, figures)
    if contents(base / "given") != before:
        faults.append("what was given has changed")
    return {"writers": len(writers), **figures, "faults": faults}


def _in_turn(bench: Bench, calls: Calls, base: Path, share: int | None, figures: Counter[str]) -> Iterator[str]:
    for at, error, on in _points(bench, calls, share):
        hit, told = _fail(bench, calls, at, ERRORS[error], on)
        if hit is None:
            continue
        figures["points"] += 1
        figures[hit[0]] += 1
        when = f"{bench.writer.name}: call {at}, {hit[0]} {Path(hit[1]).relative_to(base)}: {error}"
        when += " from there on" if on else ""
        yield from (f"{when}: {fault}" for fault in _judge(bench, told, hit, figures, on))
        yield from (f"{when}: then {fault}" for fault in _again(bench))


def _points(bench: Bench, calls: Calls, share: int | None) -> Iterator[tuple[int, str, bool]]:
    """Calls to fail, by their number, each with an error."""
    bench.clear()
    with tempfile.TemporaryFile() as place:
        bench.run(lambda: calls.fail(0, 0), lambda: os.write(place.fileno(), str(calls.count).encode()))
        place.seek(0)
        count = int(place.read())
    errors = list(ERRORS)
    step = share or (SLOW if bench.writer.slow else 1)
    if not (bench.writer.folder or bench.writer.slow):
        step = max(1, step // QUICK)
    for number, at in enumerate(range(1 + count % step, count + 1, step)):
        if share is None and not bench.writer.folder:
            yield from ((at, error, False) for error in errors)
        else:
            yield at, errors[number % len(errors)], False
        if number % len(errors) == 0:
            yield at, "ENOSPC", True


def _fail(bench: Bench, calls: Calls, at: int, error: int, on: bool) -> tuple[tuple[str, str] | None, Told]:
    bench.clear()
    with tempfile.TemporaryFile() as place:

        def after() -> None:
            os.write(place.fileno(), "\t".join(calls.hit or ()).encode())
            calls.fail(0, 0)

        told = bench.run(lambda: calls.fail(at, error, on=on), after)
        place.seek(0)
        name, _, path = place.read().decode().partition("\t")
    return ((name, path) if name else None), told


def _judge(bench: Bench, told: Told, hit: tuple[str, str], figures: Counter[str], on: bool) -> Iterator[str]:
    writer, call, path = bench.writer, hit[0], Path(hit[1])
    if told.escaped:
        yield f"an exception that nobody caught: {told.escaped.strip().splitlines()[-1]}"
    if told.code not in (0, 1, 2):
        yield f"exit code {told.code}"
    if told.code == 0:
        figures["went on"] += 1
        if not (bench.is_new() or (writer.kept and not bench.found)):
            yield "said nothing, and what is there is not what was to be written"
    elif not told.escaped:
        figures["named"] += 1
        lines = [line for line in told.said.splitlines() if line.startswith("ernie-rt: ")]
        if len(lines) != 1 or "Traceback" in told.said:
            yield f"no error of one line: {told.said!r}"
        if bench.is_new():
            figures["in place, and said to have failed"] += 1
            read = path in bench.out.parents or any(
                place in (path, *path.parents) for place in (bench.out, bench.given)
            )
            if not ("it is written, but" in told.said or writer.kept or read):
                yield f"what is in place is said to have failed: {told.said!r}"
        elif not (bench.is_old() or writer.kept or writer.name == "batch"):
            yield "what was there before is not there any more"
    left = [name for name in bench.left() if not (name.startswith("out.partial") and ".tmp" not in name)]
    if left and not writer.kept and call not in UNDONE and not on:
        yield f"left {left}"


def _again(bench: Bench) -> Iterator[str]:
    """The same once more, and nothing fails."""
    if bench.is_new() and not bench.writer.replaces and bench.writer.name != "batch":
        return
    told = bench.run()
    if told.code != 0 or told.escaped or not bench.is_new():
        yield f"the next run does not end well: {told.said or told.escaped}"
    elif left := bench.left():
        yield f"the next run leaves {left}"
