"""Everything that writes files for whoever uses ernie-rt, a row each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ernie_rt import writing
from ernie_rt.modeling.config import read_config
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.text.messages import Message
from ernie_rt.text.transcript import write_transcript
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.stamps import SETTLED_NS, Stamp, Stamps
from ernie_rt_serve.batch.job import Job
from support import batches
from support.commands import command
from support.drawn import DENSE, write_drawn
from support.untrained import write_untrained

Contents = Mapping[str, bytes]
OLD: Final = b"what was there before"
RECORD: Final = "ab" * 32


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes `out`, a path in a folder `work`, from what lies in a folder `given`.

    `run` does it: a command of the command line, or a function of Python. What `replaces` takes the place of an older
    file. What is `kept` for later runs alone may fail without a word; `same` says whether two results mean the same,
    where that is not to have the same bytes. `slow` ones are left to the long tests.
    """

    name: str
    out: str
    run: Callable[[Path, Path], object]
    replaces: bool = False
    kept: bool = False
    same: Callable[[Contents, Contents], bool] = lambda found, expected: found == expected
    slow: bool = False
    folder: bool = False


def prepare(given: Path) -> None:
    """What all of them read: checkpoints, a quantised folder, requests."""
    given.mkdir()
    write_drawn(given / "dense", DENSE)
    write_untrained(given / "untrained")
    how = Quantization(4, clip_search=False)
    quantize_model(given / "dense", read_config(given / "dense"), given / "int4", how)
    batches.write_requests(given / "asked.jsonl", 5)


def contents(path: Path) -> Contents:
    """The files at a path or below it, by their names there; nothing where there is nothing."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def _quantize(given: Path, work: Path) -> object:
    options = ("--weights", "int4", "--no-clip-search", "--threads", 1)
    return command("quantize", given / "dense", work / "out", *options)


def _export(given: Path, work: Path) -> object:
    options = ("--weights", "int4", "--no-clip-search", "--threads", 1)
    return command("export", "onnx", given / "dense", work / "out", *options)


def _run(*options: object) -> Callable[[Path, Path], object]:
    def run(given: Path, work: Path) -> object:
        more = [work / "out" if option is OUT else option for option in options]
        return command("run", given / "untrained", "hello", "-n", 1, "--backend", "reference", "--quiet", *more)

    return run


OUT: Final = object()


def _new(given: Path, work: Path) -> object:
    os.chdir(work)
    return command("backends", "new", "mychip")


def _file(overwrite: bool) -> Callable[[Path, Path], object]:
    def run(given: Path, work: Path) -> None:
        with writing.write_atomic(work / "out", overwrite=overwrite) as file:
            file.write(b"new" * (writing.WRITTEN_AT_ONCE // 2))
            file.write(b"and more")

    return run


def _chat(given: Path, work: Path) -> None:
    write_transcript(work / "out", "demo", [Message("user", "hello")], overwrite=True)


def _rows(given: Path, work: Path) -> None:
    RowStore(work / "out", 1 << 20).write(RECORD, b"tokens", b"rows" * 1000, 0)


def _stamps(given: Path, work: Path) -> None:
    path = given / "asked.jsonl"
    status = path.stat()
    Stamps(work / "out").remember(path, Stamp.of(status), "5d" * 32, status.st_ctime_ns + SETTLED_NS)


def _batch(given: Path, work: Path) -> None:
    batches.run(Job(requests=given / "asked.jsonl", answers=work / "out"))


def _answered(found: Contents, expected: Contents) -> bool:
    """Whether each request has one answer."""
    told = [json.loads(line)["custom_id"] for data in found.values() for line in data.splitlines()]
    return sorted(told) == [f"r{number}" for number in range(5)]


def _page(found: Contents, expected: Contents) -> bool:
    """Whether a page is whole: its figures are those of the moment."""
    return found[""].startswith(b"<!doctype html>") and found[""].endswith(b"</html>\n")


def _record(found: Contents, expected: Contents) -> bool:
    """Whether a record is whole: its digest is made with a secret of the folder's own."""
    return all(len(found.get(name, b"")) == len(data) for name, data in expected.items())


def _receipts(found: Contents, expected: Contents) -> bool:
    """Whether they differ in their dates alone."""
    one, other = ({k: v for k, v in json.loads(each[""]).items() if k != "date"} for each in (found, expected))
    return bool(one == other)


WRITERS: Final = (
    Writer("a file", "out", _file(overwrite=True), replaces=True),
    Writer("a new file", "out", _file(overwrite=False)),
    Writer("quantize", "out", _quantize, folder=True),
    Writer("convert", "out", lambda given, work: command("convert", given / "int4", work / "out", "--layout", "tiled"),
           folder=True, slow=True),
    Writer("export onnx", "out", _export, folder=True),
    Writer("run --weights int4", "kept/cache/ernie-rt/quantized", _run("--weights", "int4"), kept=True, slow=True),
    Writer("run --receipt", "out", _run("--receipt", OUT), same=_receipts, slow=True),
    Writer("plan --html", "out", lambda given, work: command("plan", "demo", "--html", work / "out"), replaces=True,
           same=_page, slow=True),
    Writer("backends new", "ernie-rt-mychip", _new, folder=True),
    Writer("a saved chat", "out", _chat, replaces=True),
    Writer("kept rows", "out", _rows, kept=True, same=_record),
    Writer("stamps", "out", _stamps, kept=True),
    Writer("batch", "out", _batch, same=_answered),
    Writer("routing --svg", "out", lambda given, work: command(
        "routing", given / "untrained", "hello", "--backend", "reference", "--threads", 1, "--svg", work / "out"
    ), replaces=True, slow=True),
    Writer("conform --html", "out", lambda given, work: command(
        "conform", "reference", "--level", "L0", "--html", work / "out"
    ), replaces=True, same=_page, slow=True),
)  # fmt: skip
