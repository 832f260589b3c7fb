"""Files of requests for `ernie-rt batch`, and files of answers that a former run may have left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from ernie_rt_serve.batch.job import Batch, Job
from fuzz.mutations import TEXTS, changed, damaged, dumped, value
from fuzz.target import Attempt, Target

URLS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "")
ANSWER: Final[dict[str, Any]] = {
    "id": "batch_req_1", "custom_id": "r0", "error": None,
    "response": {"status_code": 200, "request_id": "q", "body": {"usage": {"prompt_tokens": 1, "output_tokens": 2}}},
}  # fmt: skip
BODIES: Final = (
    (200, b'{"usage": {"prompt_tokens": 3, "completion_tokens": 1}}'), (400, b"{}"), (200, b"no JSON"), (500, b"\xff"),
    (200, b'{"usage": {"prompt_tokens": "x"}}'), (200, b'{"a":\n 1}'), (200, b""), (200,
    b'{"usage": {"prompt_tokens": 1e400}}'),
    (200, b"[" * 2000), (200, b'"\\ud800"'), (200, b"9" * 5000),
)  # fmt: skip


def start(folder: Path) -> Attempt:
    loop = asyncio.new_event_loop()
    requests, answers = folder / "requests.jsonl", folder / "answers.jsonl"

    def attempt(rng: Random) -> None:
        requests.write_bytes(lines(rng))
        for path in (answers, folder / "errors.jsonl"):
            path.unlink(missing_ok=True)
        if rng.random() < 0.3:
            answers.write_bytes(former(rng))
        errors = rng.choice((None, None, None, folder / "errors.jsonl", answers if rng.random() < 0.2 else None))
        target = (
            answers
            if rng.random() < 0.98
            else rng.choice((folder, Path("/dev/null"), folder / "no" / "x", Path("a\0b")))
        )
        before = target.read_bytes() if target == answers and answers.exists() else b""
        job = Job(
            requests=requests, answers=target, errors=errors, concurrency=2, ordered=rng.random() < 0.3,
            skip_bad=rng.random() < 0.7,
        )  # fmt: skip
        said: list[str] = []
        try:
            with Batch(job, lambda data: None, said.append) as batch:
                loop.run_until_complete(batch.run(responding(rng), lambda tally: None))
                assert batch.left == 0 and batch.failed <= batch.total
        except BaseException:
            assert not before or answers.read_bytes().startswith(before.rpartition(b"\n")[0])
            raise
        for line in answers.read_bytes().split(b"\n")[before.count(b"\n") : -1] if target == answers else ():
            msgspec.json.decode(line, type=msgspec.Raw)
        assert all(len(text) < 2000 for text in said)

    return attempt


def responding(rng: Random) -> Any:
    async def respond(path: str, body: bytes, id: str) -> tuple[int, bytes]:
        return rng.choice(BODIES)

    return respond


def lines(rng: Random) -> bytes:
    """A file of requests, of which some are none."""
    made = []
    for number in range(rng.choice((0, 1, 1, 2, 3, 12))):
        request: Any = {
            "custom_id": f"r{rng.choice((number, number, number, 0))}", "method": "POST", "url": rng.choice(URLS[:3]),
            "body": {"prompt": "x", **({"model": rng.choice(("demo", "demo", "other"))} if rng.random() < 0.3 else {})},
        }  # fmt: skip
        match rng.randrange(12):
            case 0 | 1:
                request = changed(rng, request, rng.choice((1, 2)))
            case 2:
                request["url"] = rng.choice(URLS)
            case 3:
                request["custom_id"] = rng.choice((*TEXTS, "x" * 10_000))
            case 4:
                request["body"] = rng.choice((value(rng), {"stream": True}, {"model": value(rng)}, {"model": "\ud800"}))
        line = dumped(request).encode(errors="surrogatepass")
        made.append(damaged(rng, line) if rng.random() < 0.05 else line)
    data = rng.choice((b"\n", b"\n", b"\r\n", b"\n\n \n")).join(made) + rng.choice((b"", b"\n", b"\0"))
    return rng.choice((data, data, data, b"\xef\xbb\xbf" + data, damaged(rng, data)))


def former(rng: Random) -> bytes:
    """A file of answers, perhaps to something else, perhaps torn."""
    made = []
    for number in range(rng.choice((1, 1, 2, 3))):
        answer: Any = {**ANSWER, "custom_id": f"r{rng.choice((number, number, 0, 99))}"}
        if rng.random() < 0.2:
            answer = changed(rng, answer)
        made.append(dumped(answer).encode(errors="surrogatepass").replace(b": ", b":").replace(b", ", b","))
    data = b"\n".join(made) + b"\n"
    match rng.randrange(6):
        case 0:
            return data[: rng.randrange(len(data))]
        case 1:
            return data + rng.choice((b"{", b'{"id":"batch_req_', b"{}", b"my diary", b"\0"))
        case 2 if rng.random() < 0.2:
            return rng.choice((b"\0", b"my diary")) + data
        case 2:
            return damaged(rng, data)
    return data


TARGET = Target(
    "batches",
    ("ernie_rt_serve.batch.requests", "ernie_rt_serve.batch.answers", "ernie_rt_serve.batch.job"),
    start,
    share=1500,
    excused={
        "self._unwritten": "the disk takes what it is given",
        "writing.unkept": "so does the folder for temporary files",
        "the requests cannot be read": "the file can be read",
    },
)
