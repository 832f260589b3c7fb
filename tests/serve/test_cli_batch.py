"""`ernie-rt batch` on the demo model, where answers mean something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt_serve.cli.batch import batch
from support.batches import request, write_requests

GRAMS = "How many grams are in 5 kilograms?"
PROGRAM = """
import signal, typer
signal.signal(signal.SIGINT, signal.default_int_handler)
from ernie_rt_serve.cli.batch import batch
app = typer.Typer()
app.command()(batch)
app()
"""


def run(*arguments: object, stdin: str | None = None) -> Result:
    app = typer.Typer()
    app.command()(batch)
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def asked(number: int, text: str, **fields: Any) -> str:
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], "temperature": 0}
    return json.dumps(request(number, body=body | fields))


def read(text: str) -> dict[str, Any]:
    return {answer["custom_id"]: answer["response"] for answer in map(json.loads, text.splitlines())}


def test_a_body_may_be_larger_than_a_stranger_s(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(asked(0, ", " * (1 << 18)))
    told = read(run(path, "-o", "-", "--quiet").stdout)["r0"]
    assert told["status_code"] == 400 and told["body"]["error"]["code"] == "context_length_exceeded"


def test_answers_are_those_of_a_server(tmp_path: Path) -> None:
    path, answers, errors = tmp_path / "a.jsonl", tmp_path / "answers.jsonl", tmp_path / "errors.jsonl"
    text = {"body": {"model": "demo", "prompt": "1 + 1 =", "max_tokens": 4}, "url": "/v1/completions"}
    lines = [
        asked(0, GRAMS),
        asked(1, "hi", messages=[]),
        json.dumps(request(2, **text)),
    ]
    path.write_text("\n".join(lines))
    result = run(path, "-o", answers, "--errors", errors)
    assert result.exit_code == 1 and "3 requests, 1 with errors; " in result.stderr
    found = read(answers.read_text())
    assert found["r0"]["body"]["choices"][0]["message"]["content"] == "5 kilograms = 5000 grams"
    assert found["r2"]["body"]["usage"]["completion_tokens"] <= 4 and found.keys() == {"r0", "r2"}
    refused = read(errors.read_text())["r1"]
    assert refused["status_code"] == 400 and refused["body"]["error"]["param"] == "messages"
    again = run(path, "-o", answers, "--errors", errors)
    assert "3 of 3 were answered before" in again.stderr and again.exit_code == 1


def test_responses(tmp_path: Path) -> None:
    path, answers = tmp_path / "a.jsonl", tmp_path / "answers.jsonl"
    path.write_text(json.dumps(request(0, url="/v1/responses", body={"model": "demo", "input": GRAMS})))
    result = run(path, "-o", answers)
    assert result.exit_code == 0 and "1 requests, 0 with errors; 26 tokens of prompts, " in result.stderr
    assert "5000 grams" in json.dumps(read(answers.read_text())["r0"]["body"]["output"])


def test_from_standard_input_to_standard_output() -> None:
    result = run("-", "-o", "-", "-m", "demo", "-q", stdin=asked(0, GRAMS, model="other"))
    assert result.exit_code == 0 and not result.stderr
    body = read(result.stdout)["r0"]["body"]
    assert body["choices"][0]["message"]["content"] == "5 kilograms = 5000 grams" and body["model"] == "other"


def test_another_model_than_that_of_the_requests_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    said = "the requests ask for other: demo answers them"
    for number, (name, options) in enumerate((("other", ["-m", "demo"]), ("demo", ["-m", "demo"]), ("demo", []))):
        path.write_text(asked(0, GRAMS, model=name, max_tokens=1))
        result = run(path, "-o", tmp_path / f"{number}.jsonl", *options)
        assert result.exit_code == 0 and ("answers them" in result.stderr) == (said in result.stderr) == (number == 0)


def test_what_is_wrong_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{")
    assert isinstance(run(path, "-o", tmp_path / "b", "-m", "absent").exception, FileFormatError)
    path.write_text(json.dumps(request(0, body={})))
    result = run(path, "-o", tmp_path / "b")
    assert isinstance(result.exception, OptionError) and "no model" in str(result.exception)


@pytest.mark.long
def test_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    path, answers = tmp_path / "a.jsonl", tmp_path / "answers.jsonl"
    write_requests(path, 400)
    command = [sys.executable, "-c", PROGRAM, path, "-o", answers]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (answers.exists() and answers.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "of 400 are left; the same command goes on from there" in said
    assert "Traceback" not in said
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == 0
    assert len(answers.read_text().splitlines()) == len(read(answers.read_text())) == 400
