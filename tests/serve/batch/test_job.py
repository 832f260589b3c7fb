"""Each request gets one answer, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ernie_rt import writing
from ernie_rt.errors import CapacityError, FileFormatError, OptionError, WriteError
from ernie_rt_serve.batch import answers
from ernie_rt_serve.batch.answers import BEGINNING
from ernie_rt_serve.batch.job import STREAM, Batch, Job
from ernie_rt_serve.batch.run import Tally
from support import batches
from support.batches import echo, request, run, write_requests

ROOT = Path(__file__).parents[2]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def job(folder: Path, **fields: Any) -> Job:
    return Job(requests=folder / "asked.jsonl", answers=folder / "answers.jsonl", **fields)


def whole(answers: list[dict[str, Any]], count: int) -> bool:
    """Whether each of so many requests has one answer, its own."""
    told = {answer["custom_id"]: answer["response"]["body"]["asked"] for answer in answers}
    return len(answers) == count and told == {f"r{number}": f"{number} 个苹果" for number in range(count)}


def test_answers_have_openais_shape(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 3)
    batch = run(job(tmp_path))
    found = read(tmp_path / "answers.jsonl")
    assert whole(found, 3)
    first = found[0]
    assert first.keys() == {"id", "custom_id", "response", "error"} and first["error"] is None
    assert first["id"].startswith("batch_req_") and first["response"]["request_id"].startswith("req_")
    assert first["response"]["status_code"] == 200
    assert (batch.total, batch.found, batch.left, batch.failed) == (3, 0, 0, 0)
    assert (batch.tally.prompt_tokens, batch.tally.output_tokens) == (21, 6)


def test_order_is_that_of_completion_or_of_the_requests(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 200)
    for ordered in (False, True):
        (tmp_path / "answers.jsonl").unlink(missing_ok=True)
        random.seed(1)
        run(job(tmp_path, ordered=ordered, concurrency=8), echo(0.002))
        found = read(tmp_path / "answers.jsonl")
        assert whole(found, 200)
        ids = [answer["custom_id"] for answer in found]
        assert (ids == [f"r{number}" for number in range(200)]) == ordered


@pytest.mark.parametrize("ordered", [False, True])
def test_so_many_at_once_and_no_more(ordered: bool, tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 300)
    running: set[str] = set()
    most = begun = before_the_first = 0

    async def respond(path: str, body: bytes, id: str) -> tuple[int, bytes]:
        nonlocal most, begun, before_the_first
        running.add(id)
        begun += 1
        most = max(most, len(running))
        first = begun == 1
        await asyncio.sleep(0.2 if first else 0)
        before_the_first = before_the_first or (begun if first else 0)
        running.remove(id)
        return 200, b"{}"

    run(job(tmp_path, ordered=ordered, concurrency=4), respond)
    assert most == 4 and begun == 300 and len(read(tmp_path / "answers.jsonl")) == 300
    assert before_the_first == (64 if ordered else 300)  # in order, nobody gets further ahead


def test_an_answer_lies_in_the_file_at_once(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 5)

    def look(tally: Tally) -> None:
        assert len(read(tmp_path / "answers.jsonl")) == tally.answered

    with Batch(job(tmp_path), print, print) as batch:
        asyncio.run(batch.run(echo(), look))


async def mixed(path: str, body: bytes, id: str) -> tuple[int, bytes]:
    match json.loads(body)["messages"][0]["content"][0]:
        case "0":
            raise CapacityError("too long")
        case "1":
            return 400, b'{"error": {"message": "no"}}'
        case "2":
            return 502, b"<html>\n"
        case _:
            return 200, b'{"usage": "many"}'


def test_errors_are_answers(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 4)
    batch = run(job(tmp_path), mixed)
    assert batch.failed == 3 and (batch.tally.prompt_tokens, batch.tally.output_tokens) == (0, 0)
    told = {answer["custom_id"]: answer for answer in read(tmp_path / "answers.jsonl")}
    assert told["r0"]["response"] is None and told["r0"]["error"] == {"code": "failed", "message": "too long"}
    assert told["r1"]["response"]["status_code"] == 400
    assert told["r1"]["response"]["body"] == {"error": {"message": "no"}} and told["r1"]["error"] is None
    assert told["r2"]["response"]["body"] == "<html>\n"
    again = run(job(tmp_path))
    assert (again.found, again.failed, again.tally.answered) == (4, 3, 0)


def test_errors_in_a_file_of_their_own_can_be_tried_again(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 4)
    errors = tmp_path / "errors.jsonl"
    run(job(tmp_path, errors=errors), mixed)
    assert [answer["custom_id"] for answer in read(tmp_path / "answers.jsonl")] == ["r3"]
    assert sorted(answer["custom_id"] for answer in read(errors)) == ["r0", "r1", "r2"]
    assert run(job(tmp_path, errors=errors)).found == 4
    errors.unlink()
    again = run(job(tmp_path, errors=errors))
    assert (again.found, again.tally.answered, again.failed) == (1, 3, 0) and len(read(tmp_path / "answers.jsonl")) == 4


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_dropped_and_answered_again(cut: int, tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 5)
    run(job(tmp_path))
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = run(job(tmp_path))
    assert (again.found, again.tally.answered) == (4, 1) and whole(read(path), 5)


@pytest.mark.parametrize("kept", [0, 5, 40, 1])
def test_zeros_after_a_loss_of_power_are_dropped(kept: int, tmp_path: Path) -> None:
    """A file system may have a file's new length, and not what was to fill it."""
    write_requests(tmp_path / "asked.jsonl", 5)
    run(job(tmp_path))
    path = tmp_path / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    data = lines[0] if kept == 1 else lines[0][:kept]
    path.write_bytes(data + bytes(9000) + (lines[-1] if kept == 1 else b""))
    again = run(job(tmp_path))
    assert (again.found, again.tally.answered) == (kept == 1, 5 - (kept == 1)) and whole(read(path), 5)


OTHERS = {
    "notes": b"buy milk\nand bread\n",
    "one line": b"buy milk",
    "another batch": BEGINNING + b'1","custom_id":"other","response":null,"error":null}\n',
    "twice": (BEGINNING + b'1","custom_id":"r1","response":null,"error":null}\n') * 2,
    "torn within": BEGINNING + b'1","cus\n' + BEGINNING + b'1","custom_id":"r1","response":null,"error":null}\n',
    "a picture": bytes(3) + b"\1\0" * 20 + b"\n",
    "requests": json.dumps(request(0)).encode() + b"\n",
    "nested": BEGINNING + b'1","custom_id":"r1","response":' + b"[" * 99_999 + b"\n",
    "not UTF-8": BEGINNING + b'1","custom_id":"r\xff","response":null,"error":null}\n',
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_something_else_is_left_alone(name: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 3)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(OTHERS[name])
    with pytest.raises(FileFormatError, match=r"answers.jsonl, line [12]: not a file of answers to these requests"):
        run(job(tmp_path))
    assert path.read_bytes() == OTHERS[name]


def test_files_that_cannot_be(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 1)
    asked = tmp_path / "asked.jsonl"
    with pytest.raises(WriteError, match="cannot be written"):
        run(Job(requests=asked, answers=tmp_path / "absent" / "a"))
    with pytest.raises(WriteError, match="not a regular file"):
        run(Job(requests=asked, answers=tmp_path))
    with pytest.raises(OptionError, match="--errors names the file of the answers"):
        run(Job(requests=asked, answers=tmp_path / "a", errors=tmp_path / "a"))
    with pytest.raises(FileFormatError, match="not a file of answers"):
        run(Job(requests=asked, answers=asked))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 1)
    with Batch(job(tmp_path), print, print), pytest.raises(WriteError, match="another process is writing it"):
        run(job(tmp_path))
    assert run(job(tmp_path)).left == 0


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_requests(tmp_path / "asked.jsonl", 9)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(answers, "SYNC_SECONDS", 0.0)
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"an answer cannot be written; found No space left .* the same command"):
            run(job(tmp_path))
    assert run(job(tmp_path)).found > 0 and whole(read(tmp_path / "answers.jsonl"), 9)


def test_standard_input_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"{}")))
    monkeypatch.setattr(writing, "temporary_file", lambda: open("/dev/full", "w+b"))  # noqa: PTH123, SIM115
    with pytest.raises(WriteError, match="nothing can be kept in the folder for temporary files; found No space left"):
        run(Job(requests=STREAM, answers=STREAM))


def test_what_writing_raises_ends_all(tmp_path: Path) -> None:
    write_requests(tmp_path / "asked.jsonl", 50)

    def refuse(line: bytes) -> None:
        raise WriteError("nobody reads")

    with (
        Batch(Job(requests=tmp_path / "asked.jsonl", answers=Path("-")), refuse, print) as batch,
        pytest.raises(WriteError, match="nobody reads"),
    ):
        asyncio.run(batch.run(echo(), lambda tally: None))


def kill_and_resume(folder: Path, count: int, seconds: float, moments: list[float], *flags: str) -> int:
    """Runs of a process that is killed at each moment, and one that is not; how many kills came before its end."""
    write_requests(folder / "asked.jsonl", count)
    command = [sys.executable, batches.__file__, folder / "asked.jsonl", folder / "answers.jsonl", str(seconds), *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = 0
    for moment in moments:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        path = folder / "answers.jsonl"
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moment)
        process.kill()
        killed += process.wait() < 0
    assert subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout == f"{count}\n".encode()
    assert whole(read(folder / "answers.jsonl"), count)
    return killed


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    assert kill_and_resume(tmp_path, 300, 0.05, [0.05, 0.15]) == 2


@pytest.mark.long
@pytest.mark.parametrize("flags", [(), ("--ordered",)])
def test_runs_killed_at_many_moments_go_on(flags: tuple[str, ...], tmp_path: Path) -> None:
    rng = random.Random(1)
    assert kill_and_resume(tmp_path, 20_000, 0.001, [rng.uniform(0, 0.6) for _ in range(15)], *flags) > 10
    if flags:
        assert [answer["custom_id"] for answer in read(tmp_path / "answers.jsonl")] == [f"r{i}" for i in range(20_000)]


@pytest.mark.long
@pytest.mark.parametrize("ordered", [False, True])
def test_many_lines_take_little_memory(ordered: bool, tmp_path: Path) -> None:
    """100,000 requests of 2 kB each, half of them answered in a second run: about 200 MB go in, and 40 MB come out."""
    write_requests(tmp_path / "asked.jsonl", 100_000, padding="x" * 2000)
    program = (
        "import resource, sys; from pathlib import Path; from support.batches import *\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"run(Job(requests=Path(sys.argv[1]), answers=Path(sys.argv[2]), ordered={ordered}))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    command = [sys.executable, "-c", program, tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def grown() -> int:
        return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    assert grown() < 24  # MiB
    path = tmp_path / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:50_000]))
    assert grown() < 24
    assert whole(read(path), 100_000)
