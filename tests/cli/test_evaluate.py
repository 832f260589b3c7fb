"""`ernie-rt eval`: the table, the JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.commands import command

TEXT = "The old teacher watches the harbour before dawn, and the others know it."
HERE = ("--backend", "eager", "--dtype", "float32", "--threads", 1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def test_the_table(untrained: Path, text: Path) -> None:
    ran = command("eval", untrained, "--file", text, *HERE)
    head, row = ran.out.splitlines()
    assert ran.code == 0 and head.split() == ["PERPLEXITY", "TOKEN", "BYTE", "WORD", "BITS", "A", "BYTE"]
    assert re.fullmatch(r"model eager@cpu:float32  \d+\.\d{4} ± \S+ +\d+\.\d{4} +\S+ +\d+\.\d{4}", row)
    assert re.fullmatch(r"\d+ tokens predicted, in windows of 512 every 256\n", ran.err)
    assert command("eval", untrained, *HERE, "-q", stdin=TEXT.encode()) == type(ran)(0, ran.out, "")


def test_against_another_configuration(untrained: Path, text: Path) -> None:
    ran = command("eval", untrained, "-f", text, *HERE, "-q", "--against-dtype", "bfloat16", "--context", "0.016k")
    lines = ran.out.splitlines()
    assert ran.code == 0 and lines[2].startswith("model eager@cpu:bfloat16  ") and lines[3] == ""
    names = ["KL DIVERGENCE", "median", "99th percentile", "largest", "same likeliest token", "ratio of perplexities"]
    assert [line.split("  ")[0] for line in lines[4:]] == names
    told = json.loads(command("eval", untrained, "-f", text, *HERE, "-q", "--against-weights", "int8", "--json").out)
    assert told["models"] == ["model eager@cpu:float32", "model eager@cpu:float32 int8"]
    assert 0 < told["divergence"]["mean"] < 0.1 and told["stride"] == 256


def test_what_it_refuses(untrained: Path, text: Path, tmp_path: Path) -> None:
    for extra, said in (
        (("--stride", 20, "--context", 16), "stride is not possible; expected 1 to 16"),
        (("--stride", 0), "stride is not possible; expected 1 to"),
        (("--context", 5000), "--context is not possible; expected 2 to"),
        (("--context", 1), "--context is not possible; expected 2 to"),
        (("--context", "x"), "not a size"),
        (("--against", "demo"), "the two models have other tokens"),
        (("--file", tmp_path / "none.txt"), "there is no such file"),
    ):
        ran = command("eval", untrained, "-f", text, *HERE, *extra)
        assert (ran.code, ran.out) == (2, "") and said in ran.err
