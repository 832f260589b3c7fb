"""A batch that a script answers; as a program, to be killed: REQUESTS ANSWERS SECONDS, and --ordered."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from ernie_rt_serve.batch.job import Batch, Job
from ernie_rt_serve.batch.run import Respond


def write_requests(path: Path, count: int, **fields: Any) -> None:
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps(request(number, **fields)) + "\n")


def request(number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": f"{number} 个苹果"}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body} | fields


def echo(seconds: float = 0.0) -> Respond:
    """Answers with what was asked, after about so long."""

    async def respond(path: str, body: bytes, id: str) -> tuple[int, bytes]:
        await asyncio.sleep(seconds * random.random() * 2)
        asked = json.loads(body)
        usage = {"prompt_tokens": 7, "completion_tokens": 2}
        return 200, json.dumps({"asked": asked["messages"][0]["content"], "usage": usage}, indent=1).encode()

    return respond


def run(job: Job, respond: Respond | None = None) -> Batch:
    """The batch when it has ended."""
    with Batch(job, sys.stdout.buffer.write, print) as batch:
        asyncio.run(batch.run(respond or echo(), lambda tally: None))
    return batch


if __name__ == "__main__":
    asked, answers, seconds, *ordered = sys.argv[1:]
    print(run(Job(requests=Path(asked), answers=Path(answers), ordered=bool(ordered)), echo(float(seconds))).total)
