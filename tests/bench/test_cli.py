"""`ernie-rt bench`, from what is typed to what is printed and written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from ernie_rt.errors import BackendError, OptionError
from ernie_rt_bench import rounds
from ernie_rt_bench.cli import app
from ernie_rt_bench.process import Process
from ernie_rt_bench.workload import Workload
from support.vision_checkpoint import write_vision_checkpoint

QUICK = ("--prompt", 6, "--new", 2, "--rounds", 1, "--threads", 1)


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "READ_BYTES", 1 << 16)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_backend_from_end_to_end(tmp_path: Path) -> None:
    markdown, plot = tmp_path / "a.md", tmp_path / "a.svg"
    found = run("demo", "--backend", "reference", *QUICK, "--by-op", "--json", "--markdown", markdown, "--plot", plot)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    (result,) = told["results"]
    assert result["name"] == "ernie-rt reference float32" and result["facts"]["device"] == "cpu"
    assert [(m["kind"], m["context"], m["tokens"]) for m in result["measurements"]] == [
        ("prefill", 6, 6), ("decode", 6, 2)
    ]  # fmt: skip
    assert result["facts"]["decode_bytes"]["6"] > 1e6 and result["facts"]["first"] > 0
    assert [step["kind"] for step in result["steps"]] == ["prompt of 6", "a token after 6"]
    if sys.platform == "linux":
        assert result["peak_bytes"] > 20 << 20
    assert "| ernie-rt reference float32 |" in markdown.read_text()
    ElementTree.fromstring(plot.read_text())


def test_a_picture_and_the_tower_alone(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path / "sees")
    picture = ("--image", "200x150", "--backend", "reference")
    found = run(tmp_path / "sees", *picture, *QUICK, "--json", "--markdown", tmp_path / "a.md")
    assert found.exit_code == 0, found.output
    (result,) = json.loads(found.stdout)["results"]
    assert [(m["kind"], m["context"], m["tokens"]) for m in result["measurements"]] == [
        ("prefill", 6, 6), ("decode", 6, 2), ("tower", 35, 35), ("picture", 41, 41)
    ]  # fmt: skip
    assert all(m["seconds"] > 0 for m in result["measurements"])
    assert "| SECONDS | TOWER 196x140, 35 TOKENS | FIRST TOKEN AFTER IT AND 6 |" in (tmp_path / "a.md").read_text()
    error = run("demo", *picture, *QUICK).exception
    assert isinstance(error, OptionError) and error.what == "the model takes in text alone"
    error = run("demo", *picture, "--vs", "transformers").exception
    assert isinstance(error, OptionError) and error.what == "--image measures ernie-rt alone"


def test_the_model_may_be_named_in_two_ways_and_has_to_be() -> None:
    for arguments in (("--model", "no/such", "--layers", 1), ("no/such", "--layers", 1), ("--layers", 1, "no/such")):
        error = run(*arguments, *QUICK).exception
        assert isinstance(error, OptionError) and error.found == "no/such"
    for arguments, what in ((), "no model is named"), (("demo", "--model", "demo"), "two models are named"):
        error = run(*arguments).exception
        assert isinstance(error, OptionError) and error.what == what


def test_help_has_options_and_the_command() -> None:
    text = run("--help").output
    assert "[MODEL] COMMAND" in text and "--by-op" in text and "serve" in text
    usage = run("serve", "--help").output.splitlines()[0]
    assert usage.endswith("serve [OPTIONS]") and "MODEL" not in usage


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("--vs", "llama.cpp", "--llama-bench", "nowhere"), "llama-bench, which is not there", "Build llama.cpp"),
        (("--vs", "llama.cpp", "--llama-bench", sys.executable), "none was given", "give --gguf FILE"),
        (("--vs", "llama.cpp", "--llama-bench", sys.executable, "--gguf", "no.gguf"), "no such file", None),
        (("--plot", "a.png"), "--plot has no known ending", None),
    ],
)
def test_what_lacks_is_named_before_anything_is_loaded(arguments: tuple[str, ...], what: str, hint: str | None) -> None:
    error = run("demo", *QUICK, *arguments).exception
    assert isinstance(error, OptionError | BackendError) and what in error.what
    assert hint is None or (error.hint is not None and hint in error.hint)


@pytest.mark.parametrize(("peer", "package"), [("transformers", "transformers"), ("onnxruntime-genai", "genai")])
def test_a_peer_that_is_not_installed(peer: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt_bench.contenders.find_spec", lambda module: None)
    error = run("demo", *QUICK, "--vs", peer).exception
    assert isinstance(error, BackendError) and "is not installed" in error.what
    assert error.hint is not None and "pip install" in error.hint and package in error.hint


def test_genai_wants_an_exported_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ernie_rt_bench.contenders.find_spec", lambda module: module)
    error = run("demo", *QUICK, "--vs", "onnxruntime-genai", "--exported", tmp_path).exception
    assert isinstance(error, OptionError) and "ernie-rt export onnx demo OUT" in str(error.hint)


def test_what_a_child_raises_is_raised_here_and_one_that_dies_is_named() -> None:
    work = Workload((6,), 2, 1, 1)
    child = Process("a backend", "ernie-rt", {"model": "no/such", "layers": 1}, work)
    try:
        with pytest.raises(BackendError, match="ended with exit code 1"):  # it was not given what it asks for
            child.start()
    finally:
        child.close()
    error = run("demo", *QUICK, "--backend", "nothing").exception
    assert isinstance(error, OptionError) and error.what == "no backend 'nothing'"
