"""`ernie-rt bench serve`, from its options to what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from ernie_rt_bench.cli import app
from ernie_rt_serve.bench import ceiling
from support.serving import Served
from support.timed_server import Script, served


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(ceiling.measure, "__defaults__", (0.05,))


def run(url: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["serve", "--base-url", url, *map(str, arguments)])


def test_a_sweep(tmp_path: Path) -> None:
    script = Script(first=0.01, each=0.002, cached=31)
    report, page = tmp_path / "a.json", tmp_path / "a.html"
    with served(script.app()) as url:
        result = run(
            url, "--concurrency", "1,4", "--requests", 6, "--prompt-tokens", "61-64", "--answer-tokens", 5,
            "--slo", "ttft=5,tpot=1", "--seed", 7, "--body", '{"temperature": 0}', "--json", report, "--plot", page,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"scripted at {url}/v1, chat"
    assert lines[1] == "prompts of 61 to 64 tokens, each unlike any other; answers of 5 tokens; seed 7"
    assert [line.partition(" in ")[0] for line in lines if "none failed" in line] == [
        "concurrency 1: 6 requests", "concurrency 4: 6 requests"
    ]  # fmt: skip
    assert "of them good (100% of all)" in result.output and "of answers (5 each)" in result.output
    # Two that show how it counts, and a round of warm-up before each load.
    assert len(script.bodies) == 2 + (1 + 6) + (4 + 6) and script.most == 4
    assert {body["temperature"] for body in script.bodies} == {0} and script.bodies[-1]["max_tokens"] == 5

    written = json.loads(report.read_bytes())
    assert written["settings"]["seed"] == 7 and written["scale"]["per_word"] == pytest.approx(1.5, rel=0.01)
    assert written["versions"]["server"] == "uvicorn" and written["ceiling"]["events"] == 5
    first = written["phases"][0]
    assert len(first["requests"]) == 6 and len(first["requests"][0]["arrivals"]) == 5
    assert all(60 <= record["prompt_tokens"] <= 65 for record in first["requests"])
    assert 0.4 < first["summary"]["cached_share"] < 0.6
    assert "<title>scripted under load</title>" in page.read_text() and "concurrency 4" in page.read_text()


def test_open_loop_without_usage(tmp_path: Path) -> None:
    script = Script(usage=False, refuses=("ignore_eos",), fails=(5,))
    plot = tmp_path / "a.svg"
    with served(script.app()) as url:
        result = run(
            url, "--rate", 100, "--requests", 8, "--warmup", 0, "--endpoint", "completions", "--answer-tokens", 3,
            "--plot", plot,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 failed (1 × 503)" in result.output and "tokens not counted by the server" in result.output
    assert "note: the server refuses ignore_eos: requests went without" in result.output
    assert "note: the server reports no `usage`" in result.output
    assert "note: 100 requests/s: a request failed with 503:" in result.output
    assert not any("ignore_eos" in body for body in script.bodies[1:])
    root = ElementTree.fromstring(plot.read_text())
    assert len(root.findall("{*}g")) == 3


def test_a_dataset_and_a_key_from_a_file(tmp_path: Path) -> None:
    script = Script()
    (tmp_path / "key").write_text("sk-secret\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one two"}\n')
    report = tmp_path / "a.json"
    with served(script.app()) as url:
        result = run(
            url, "--dataset", tmp_path / "a.jsonl", "--requests", 3, "--api-key-file", tmp_path / "key",
            "--answer-tokens", 2, "--json", report,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 prompts were asked again and again" in result.output
    assert {headers["authorization"] for headers in script.headers} == {"Bearer sk-secret"}
    assert "secret" not in result.output and b"secret" not in report.read_bytes()


def test_a_server_that_answers_nothing() -> None:
    with served(Script(fails=(0,)).app()) as url:
        result = run(url, "--requests", 1)
    assert "the server answers no request" in str(result.exception) and "503: " in str(result.exception)
    result = run(url)
    assert "no server answers" in str(result.exception) and result.exit_code != 0


def test_a_server_that_wants_a_key(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    told = str(run(locked.url).exception)
    assert "refuses the key" in told and "found HTTP 401. Give it with --api-key-file" in told


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--body", "[1]"), "--body is no JSON object"),
        (("--plot", "a.png"), "--plot has no known ending"),
        (("--slo", "speed=1"), "--slo names no latency"),
        (("--concurrency", "1", "--rate", "1"), "exclude each other"),
        (("--dataset", "absent.jsonl"), "there is no such file"),
        (("--api-key-file", "/dev/null"), "not a regular file"),
    ],
)
def test_options_that_are_wrong_are_named_before_anything_is_asked(arguments: tuple[str, str], error: str) -> None:
    result = run("http://127.0.0.1:9", *arguments)
    assert error in str(result.exception)


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "two\nlines"])
def test_a_file_without_a_key(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key)
    assert "no API key" in str(run("http://127.0.0.1:9", "--api-key-file", tmp_path / "key").exception)
