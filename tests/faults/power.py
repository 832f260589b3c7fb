"""The power fails after every change that a writer makes to the disk.

What was not synced may be there or not: of a file's bytes all, half, none, or zeros in their place; of names that were
made, changed or removed in a folder that was not synced since, all, none, the first few, or all but one. What a reader
finds then is what was there before, or all that was to be written.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from faults.calls import Calls
from faults.trials import Bench
from faults.writers import Writer

LOST: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda data: data,
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda data: bytes(len(data)),
)
"""What may be left of bytes that were not synced."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a call did: `name` it was, to the file or folder `path`, perhaps in favour of `other`; `data` it wrote at a
    place of the `file` of that number."""

    name: str
    path: str
    other: str = ""
    file: int = 0
    place: int = 0
    data: bytes = b""

    @property
    def folders(self) -> tuple[str, ...]:
        """Where names have changed."""
        return tuple(str(Path(path).parent) for path in (self.path, self.other) if path)


NAMES: Final = ("create", "mkdir", "rename", "link", "unlink")
"""Calls that change names."""


@dataclass(slots=True)
class Tree:
    """Names of files, by number, and of folders (None)."""

    names: dict[str, int | None] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        """Nothing happens where a change before this one was lost, on which it rests."""
        names = self.names
        if str(Path(change.other or change.path).parent) not in names:
            return
        if change.name == "create":
            names[change.path] = change.file
        elif change.name == "mkdir":
            names.setdefault(change.path, None)
        elif change.name == "unlink":
            names.pop(change.path, None)
        elif change.path in names:
            moved = {n: f for n, f in names.items() if n == change.path or n.startswith(change.path + "/")}
            for name, file in moved.items():
                names[change.other + name[len(change.path) :]] = file
                if change.name == "rename":
                    del names[name]


def changes(record: bytes, before: Tree) -> list[Change]:
    """What the library has written down; files have numbers from those of `before` on."""
    found: list[Change] = []
    now, at = Tree(dict(before.names)), 0
    number = max([file for file in now.names.values() if file is not None], default=0)
    while at < len(record):
        end = record.index(b"\n", at)
        name, path, other, _, place, size = record[at:end].decode().split("\t")
        at = end + 1
        data = record[at : at + int(size)] if name == "write" else b""
        at += len(data)
        if name == "create":
            number += 1
        file = number if name == "create" else now.names.get(path) or 0
        change = Change(name, path, other, file, int(place), data)
        found.append(change)
        if name in NAMES:
            now.apply(change)
    return found


def states(done: list[Change], before: Tree, stored: dict[int, bytes]) -> Iterator[dict[str, bytes | None]]:
    """What may be on the disk when the power fails after these changes: the files by their names, folders as None."""
    synced = {change.path: number for number, change in enumerate(done) if change.name == "fsync"}
    last: dict[int, int] = {}
    for number, change in enumerate(done):
        if change.name == "fsync" and change.file:
            last[change.file] = number
    kept, open_ = [], []
    for number, change in enumerate(done):
        if change.name in NAMES:
            safe = all(synced.get(folder, -1) > number for folder in change.folders)
            (kept if safe else open_).append(number)
    for chosen in _choices(open_):
        tree = Tree(dict(before.names))
        for number in sorted({*kept, *chosen}):
            tree.apply(done[number])
        for lost in LOST:
            files = {number: bytearray(data) for number, data in stored.items()}
            for number, change in enumerate(done):
                if change.name == "write":
                    data = change.data if last.get(change.file, -1) > number else lost(change.data)
                    whole = files.setdefault(change.file, bytearray())
                    whole.extend(bytes(max(0, change.place - len(whole))) if data else b"")
                    whole[change.place : change.place + len(data)] = data
                elif change.name == "resize":
                    del files.setdefault(change.file, bytearray())[change.place :]
            yield {name: None if file is None else bytes(files.get(file, b"")) for name, file in tree.names.items()}


def _choices(numbers: list[int]) -> list[tuple[int, ...]]:
    """Of what may be lost: nothing, what comes last, or one alone."""
    firsts = [tuple(numbers[:count]) for count in range(len(numbers) + 1)]
    return list(dict.fromkeys([*firsts, *(tuple(each for each in numbers if each != one) for one in numbers)]))


def power(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words; with a `share`, the next run is tried after one state in so many alone."""
    faults: list[str] = []
    figures = {"writers": 0, "changes": 0, "states": 0, "new": 0, "old": 0, "runs after it": 0}
    for writer in writers:
        bench = Bench(writer, base)
        figures["writers"] += 1
        with Calls(base) as calls:
            before, stored, done = _recorded(bench, calls)
        figures["changes"] += len(done)
        seen = set()
        for count in range(len(done) + 1):
            for state in states(done[:count], before, stored):
                key = frozenset(state.items())
                if key in seen:
                    continue
                seen.add(key)
                _put(bench, state)
                what = _judge(bench)
                if what in figures:
                    figures[what] += 1
                else:
                    after = done[count - 1]
                    faults.append(f"{writer.name}: after {after.name} {Path(after.path).name}: {what}")
                if share is None or len(seen) % share == 0:
                    figures["runs after it"] += 1
                    faults += _again(bench, f"{writer.name}: after change {count}")
        figures["states"] += len(seen)
    return {**figures, "faults": faults}


def _recorded(bench: Bench, calls: Calls) -> tuple[Tree, dict[int, bytes], list[Change]]:
    """What a run changes, from which names and bytes on."""
    bench.clear()
    before, stored = Tree({str(bench.work): None, str(bench.work.parent): None}), {}
    for number, path in enumerate(bench.work.rglob("*"), start=1):
        before.names[str(path)] = number
        stored[number] = path.read_bytes()
    with tempfile.TemporaryFile() as record:
        told = bench.run(lambda: calls.record(record.fileno()), lambda: calls.record(-1))
        assert told.code == 0, told
        record.seek(0)
        return before, stored, changes(record.read(), before)


def _put(bench: Bench, state: dict[str, bytes | None]) -> None:
    shutil.rmtree(bench.work, ignore_errors=True)
    for name, data in sorted(state.items()):
        if data is None:
            Path(name).mkdir(parents=True, exist_ok=True)
        else:
            Path(name).write_bytes(data)


def _judge(bench: Bench) -> str:
    if bench.is_new():
        return "new"
    if bench.is_old() or bench.writer.kept or bench.writer.name == "batch":
        return "old"
    return "neither what was there nor what was to be written"


def _again(bench: Bench, when: str) -> list[str]:
    if bench.is_new() and not bench.writer.replaces and bench.writer.name != "batch":
        return []
    told = bench.run()
    if told.code != 0 or not bench.is_new():
        return [f"{when}, the next run does not end well: {told.said or told.escaped}"]
    return [f"{when}, the next run leaves {left}"] if (left := bench.left()) else []
