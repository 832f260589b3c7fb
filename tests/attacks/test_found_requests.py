"""What random requests have found, each mended: the input that showed it, and the error that it must give."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ernie_rt.errors import FileFormatError, OptionError, PromptError
from ernie_rt.generation.options import check_options
from ernie_rt.generation.prompt import check_ids
from ernie_rt.location import locate
from ernie_rt.modeling.config import parse_config
from ernie_rt_serve.batch.answers import AnswerFile, answer_of
from ernie_rt_serve.batch.requests import Ledger
from ernie_rt_serve.grammars import Grammars
from ernie_rt_serve.structured import constraint
from ernie_rt_serve.task import Format, Task
from fuzz.served import KEY, Server
from fuzz.targets.http_bytes import Wires
from support.commands import command
from support.configs import DENSE
from support.serving import ask

HUGE = 10**5000
"""An integer that Python does not print."""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop": HUGE}, "stop is no list of strings; found an integer of 16610 bits"),
        ({"stop": ["a", HUGE]}, "an impossible stop string; .* found an integer of 16610 bits"),
        ({"logit_bias": {HUGE: "x"}}, "a token id in logit_bias is out of range; .* found an integer of 16610 bits"),
        ({"ignore_eos": np.zeros(2)}, "ignore_eos is not possible; expected True or False"),
        ({"max_new_tokens": np.zeros(2)}, "max_new_tokens must be a whole number above 0"),
        ({"thinking_budget": np.zeros(2)}, "thinking_budget must be a whole number above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_any_type_are_judged(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_options([2], 100, **options)


def test_an_error_can_be_made_of_an_integer_that_python_does_not_print() -> None:
    with pytest.raises(
        PromptError, match=r"a token id outside the vocabulary; .* found a value of type int that is too"
    ):
        check_ids(parse_config(DENSE, "config.json"), [HUGE])


@pytest.mark.parametrize("line", [b'{"id":"\xff"}\n', b"[" * 5000 + b"\n"], ids=["not UTF-8", "nested"])
def test_a_file_that_holds_something_else_is_no_file_of_answers(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(line)
    with Ledger() as ledger, pytest.raises(FileFormatError, match="not a file of answers to these requests"):
        AnswerFile(tmp_path / "answers.jsonl", ledger).__enter__()
    assert (tmp_path / "answers.jsonl").read_bytes() == line


def test_an_answer_that_is_no_json_is_written_as_text() -> None:
    assert answer_of("a", "b", (200, b"[" * 5000)).response is not None


@pytest.mark.usefixtures("unmeasured")
def test_a_command_without_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> float:
        raise MemoryError("Unable to allocate 256. MiB")

    monkeypatch.setattr("ernie_rt.planning.measuring.product_flops", nothing)
    outcome = command("plan", "demo")
    assert outcome.code == 1
    assert outcome.err.startswith("ernie-rt: the system gives no more memory: Unable to allocate 256. MiB. Raise its")


class Slow:
    """Takes 0.4 s to find something else wrong with each grammar."""

    asked = 0

    def compiled(self, lark: str) -> Any:
        self.asked += 1
        raise OptionError("the format cannot be used", found=f"fault {self.asked}")

    def seconds(self) -> float:
        return self.asked * 0.4


SLOW = {"properties": {f"p{n}": {"multipleOf": 99_999_989} for n in range(60)}}


@pytest.mark.parametrize(
    "task",
    [
        Task((), format=Format("json_schema", SLOW)),
        Task((), tools=tuple({"name": f"f{n}", "parameters": SLOW} for n in range(100)), tool_choice="required"),
    ],
    ids=["schema", "tools"],
)
def test_what_is_wrong_is_looked_for_no_longer_than_a_second(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each schema within a wrong one takes up to a second to try, in which nobody else's is tried."""
    slow: Any = Slow()
    clock = SimpleNamespace(monotonic=slow.seconds)  # not time's own, by which loops in other threads go
    monkeypatch.setattr("ernie_rt_serve.structured.time", clock)
    with pytest.raises(OptionError, match="the format cannot be used"):
        constraint(task, slow)
    assert slow.asked <= 4


@pytest.mark.parametrize(
    "task",
    [
        Task((), format=Format("regex", "\ud800")),
        Task((), format=Format("grammar", 'start: "\ud800"')),
        Task((), tools=({"name": "\ud800"},), tool_choice="required"),
    ],
    ids=["regex", "grammar", "tool"],
)
def test_a_format_that_is_no_unicode_text_is_none(task: Task) -> None:
    with Grammars(locate("demo").tokenizer) as grammars, pytest.raises(OptionError, match="lone surrogate"):
        constraint(task, grammars)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with closing(Server("demo")) as server:
        yield server


@pytest.mark.parametrize(
    ("pieces", "begins"),
    [
        ([b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"z\r\n"], b"HTTP/1.1 200 "),
        (
            [b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n"],
            b"HTTP/1.1 400 ",
        ),
        ([b"HEAD /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n"], b"HTTP/1.1 400 "),
        ([b"HEAD /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"z\r\n"], b"HTTP/1.1 200 "),
    ],
    ids=[
        "within its answer",
        "the last one",
        "without a body",
        "without a body, within its answer",
    ],
)
def test_a_body_that_breaks_beside_its_answer_is_no_failure_of_the_server(
    server: Server, pieces: list[bytes], begins: bytes
) -> None:
    """A chunk without a size: who asked is told, or the connection closed, and nothing goes to the log of failures."""
    wires = Wires(server)
    try:
        said, closed = server.run(wires.talk(pieces))
    finally:
        logging.getLogger("uvicorn.error").handlers.remove(wires.failures)
    assert said.startswith(begins) and closed and not wires.failures.said


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "f"}]}, "tools"),
        ("/v1/responses", {"input": [{"type": "function_call", "name": "f"}]}, "input"),
        ("/v1/chat/completions", {"messages": [{"role": "user"}]}, "messages"),
        ("/v1/completions", {"prompt": [2**31]}, "prompt"),
        ("/v1/completions", {"prompt": "x", "min_tokens": 2**31}, "min_tokens"),
        ("/v1/completions", {"prompt": "x", "stop_token_ids": [2**31]}, "stop_token_ids[0]"),
        ("/v1/completions", {"prompt": "x", "logit_bias": {"9999999999": 1}}, "logit_bias"),
    ],
)
def test_what_cannot_be_is_named_by_its_field(server: Server, path: str, body: object, param: str) -> None:
    reply = server.run(ask(server.apps[1], "POST", path, body, {"authorization": f"Bearer {KEY}"}))
    assert reply.status == 400 and reply.error["param"] == param, reply.body


def test_a_path_that_has_no_such_method_is_told_in_its_protocols_shape(server: Server) -> None:
    reply = server.run(ask(server.apps[1], "PUT", "/v1/messages", {}, {"authorization": f"Bearer {KEY}"}))
    assert reply.status == 405 and reply.json["type"] == "error"
