"""`ernie-rt diff`: the report, its exit codes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ernie_rt_eager.backend
from ernie_rt.contract import Interpreter, Node
from support.commands import Outcome, command
from support.terminal import Terminal

PROMPT = "老师 says that the morning train is late, and the others know it"


def diff(*arguments: object) -> Outcome:
    return command("diff", *arguments)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """eager forgets the attention residual of layer 2."""

    class Broken(Interpreter):
        def _call(self, node: Node, function: Callable[..., Any], live: set[int]) -> Any:
            dropped = node.scope == "layers.2.attention.residual"
            return super()._call(node, (lambda x, y: y) if dropped else function, live)

    monkeypatch.setattr(ernie_rt_eager.backend, "Interpreter", Broken)


def test_two_that_agree(untrained: Path) -> None:
    ran = diff("eager:float32", "reference", "--model", untrained, "--prompt", PROMPT, "-n", "4")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "A  eager@cpu:float32" and "B  reference@cpu:float32" in lines
    assert lines[1].split() == ["DRIFT", "NOISE", "OWN", "OF", "ROUTER"]
    layer = re.compile(r"layers\.1  \d\.\de-07  \d\.\de-07  [012]\.\d  \S+ +100\.0%")
    assert any(layer.fullmatch(line) for line in lines)
    assert lines[-1] == "same: the same tokens, and every piece of both is within the noise of its own rounding"
    assert "compared 23 tokens: 20 of prompt, and 3 of answer that are the same" in lines
    assert "█" not in ran.out


def test_a_quantised_folder_is_a_model_like_others(untrained: Path, tmp_path: Path) -> None:
    assert command("quantize", untrained, tmp_path / "int8", "--weights", "int8").code == 0
    ran = diff("eager:float32", "reference", "--model", tmp_path / "int8", "--prompt", PROMPT, "-n", "2")
    assert ran.code == 0 and ran.out.splitlines()[-1].startswith("same: ")


def test_a_tie_is_no_failure(untrained: Path) -> None:
    ran = diff("eager:bfloat16", "eager:float32", "-m", untrained, "-p", PROMPT)
    assert ran.code == 0
    assert "token 11 of the answer differs:\n  A says " in ran.out and "the oracle's best two are " in ran.out
    assert ran.out.splitlines()[-1].startswith("tie: the oracle's best two lie ")


@pytest.mark.usefixtures("broken")
def test_a_bug_is_exit_code_1_and_named(untrained: Path, tmp_path: Path) -> None:
    page = tmp_path / "drift.html"
    ran = diff("reference", "eager:bfloat16", "-m", untrained, "-p", PROMPT, "--html", page)
    found = "layers.2.attention.residual: off by "
    assert ran.code == 1 and f"\nbug: B (eager@cpu:bfloat16): {found}" in ran.out and f"\nwrong: {found}" in ran.out
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>") and f"B (eager@cpu:bfloat16): {found}" in text
    ran = diff("reference", "eager:bfloat16", "-m", untrained, "-p", PROMPT, "--json")
    told = json.loads(ran.out)
    assert ran.code == 1 and told["verdict"] == "bug" and found in told["reason"]
    assert [len(side["pieces"]) for side in told["sides"]] == [10, 56]
    (wrong,) = (piece for piece in told["sides"][1]["pieces"] if piece["own"] > 4)
    assert wrong["scope"] == "layers.2.attention.residual" and wrong["finding"] in told["reason"]


def test_prompts_come_as_for_run(untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("hello")
    by_file = diff("reference", "reference", "-m", untrained, "-f", tmp_path / "prompt", "-n", "1")
    by_pipe = command("diff", "reference", "reference", "-m", untrained, "-n", "1", stdin=b"hello")
    assert by_file.code == by_pipe.code == 0 and by_file.out == by_pipe.out


def test_a_terminal_gets_bars_and_progress(untrained: Path) -> None:
    with Terminal("diff", "reference", "reference", "-m", untrained, "-p", "hello", "-n", "2") as terminal:
        text = terminal.rest()
        assert terminal.process.wait(60) == 0
    assert "reading " in text and "running reference on cpu in float32" in text and "judging " in text and "█" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eager",), "Missing argument 'B'"),
        (("eager", "eager", "-p", "x"), "Missing option '--model'"),
        (
            ("eager", "nope", "-m", "{untrained}", "-p", "x"),
            "no backend 'nope'; expected one of cudagraph, eager, onnx, reference",
        ),
        (
            ("eager@", "eager", "-m", "{untrained}", "-p", "x"),
            "'eager@' names no backend; expected BACKEND[@DEVICE][:DTYPE]",
        ),
        (("eager:fp8", "eager", "-m", "{untrained}", "-p", "x"), "unknown dtype 'fp8'"),
        (("eager", "reference:float16", "-m", "{untrained}", "-p", "x"), "does not compute in float16 on cpu"),
        (("eager", "eager@tpu", "-m", "{untrained}", "-p", "x"), "backend 'eager' has no device 'tpu' here"),
        (("eager", "eager", "-m", "{untrained}", "-p", ""), "the prompt is empty. Give at least one token"),
        (("eager", "eager", "-m", "{untrained}", "-p", "x" * 9000), "too long to compare"),
        (("eager", "eager", "-m", "{untrained}", "-p", "x", "-n", "0"), "greater than or equal to 1"),
        (("eager", "eager", "-m", "{untrained}", "-p", "x", "-f", "y"), "a prompt was given twice"),
        (("eager", "eager", "-m", "no such model", "-p", "x"), "'no such model': no such model"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, untrained: Path) -> None:
    ran = diff(*(argument.format(untrained=untrained) for argument in arguments))
    assert (ran.code, ran.out) == (2, "") and message in ran.err and "Traceback" not in ran.err


def test_a_model_without_a_tokenizer(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    (folder / "tokenizer.model").unlink()
    ran = diff("eager", "reference", "-m", folder, "-p", "hello")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1) and "tokenizer" in ran.err


def test_a_page_that_cannot_be_written(untrained: Path, tmp_path: Path) -> None:
    ran = diff(
        "reference", "reference", "-m", untrained, "-p", "hello", "-n", "1", "--html", tmp_path / "no" / "page.html"
    )
    assert (ran.code, ran.out) == (1, "") and "page.html: cannot be written; found No such file or directory" in ran.err
