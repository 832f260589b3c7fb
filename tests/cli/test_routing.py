"""`ernie-rt routing`: the map as text, JSON, page and picture, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ernie_rt.cli.output import colourful
from support.commands import Outcome, command
from support.terminal import Terminal

TEXT = "Once there was a white cat."


def routing(*arguments: object, **options: object) -> Outcome:
    return command("routing", *arguments, "--backend", "reference", "--threads", "1", **options)  # type: ignore[arg-type]


def test_text(untrained: Path) -> None:
    ran = routing(untrained, TEXT)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("model on reference, cpu, float32: ") and "\x1b" not in ran.out
    assert [line.split()[0] for line in lines if "ENTROPY" in line] == ["ENTROPY"]
    tokens = json.loads(command("tokenize", untrained, TEXT, "--json").out)["pieces"]
    shown = [line.split('"')[1] for line in lines if re.match(r" *\d+ \"", line)]
    assert shown == tokens and lines[0].endswith(f": {len(tokens)} tokens")


def test_json_page_and_picture(untrained: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "map.html", tmp_path / "map.svg"
    ran = routing(untrained, TEXT, "--json", "--html", page, "--svg", picture)
    told = json.loads(ran.out)
    assert told["token_count"] == len(told["tokens"]) and "".join(t["text"] for t in told["tokens"]) == TEXT
    assert "<title>Where tokens go in " in page.read_text() and picture.read_text().startswith("<svg ")


def test_lines_are_texts_whose_loads_are_summed(untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text(f"{TEXT}\n\n5 kilometres\n")
    told = json.loads(routing(untrained, "--file", tmp_path / "texts", "--lines", "--json").out)
    parts = [json.loads(routing(untrained, text, "--json").out) for text in (TEXT, "5 kilometres")]
    assert told["texts"] == 2 and told["tokens"] is None
    assert told["token_count"] == sum(part["token_count"] for part in parts)
    for place, row in enumerate(told["routers"]):
        both = [part["routers"][place]["counts"] for part in parts]
        assert row["counts"] == [a + b for a, b in zip(*both, strict=True)]
    assert "2 texts, " in routing(untrained, "--file", tmp_path / "texts", "--lines").out


def test_a_question_by_the_chat_template() -> None:
    plain, asked = (json.loads(routing("demo", "5 kg?", *more, "--json").out) for more in ((), ("--chat",)))
    texts = [token["text"] for token in asked["tokens"]]
    assert asked["token_count"] > plain["token_count"] and texts[0].startswith("<|")
    assert "".join(texts).count("5 kg?") == 1


def test_layers_that_are_named(untrained: Path) -> None:
    out = routing(untrained, TEXT, "--layer", "2").out
    assert any(line.split() == ["token", "layer", "2"] for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("x", "--layer", "0"), "the layer has no router; expected --layer of 1, 2, 3; found 0"),
        (("x", "--layer", "9"), "the layer has no router"),
        (("x", "--layer", "-1"), "the layer has no router"),
        (("x", "--lines", "--layer", "1"), "--layer shows tokens"),
        ((" \n",), "the text is empty. Give it as an argument, by --file, or on standard input"),
        (("x " * 5000,), "the text is longer than the context; expected at most"),
    ],
)
def test_refused(untrained: Path, arguments: tuple[str, ...], problem: str) -> None:
    ran = routing(untrained, *arguments)
    assert ran.code == 2 and ran.err.startswith("ernie-rt: ") and problem in ran.err and ran.out == ""


def test_where_no_picture_can_be_is_said_before_anything_else(tmp_path: Path) -> None:
    for option in ("--svg", "--html"):
        ran = command("routing", "nothing", "x", option, tmp_path)
        assert ran.code == 1 and ran.err == f"ernie-rt: {tmp_path}: cannot be written; found a folder. Name a file\n"


def test_a_dense_model(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "dense")
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in config.items() if "moe" not in name and name != "architectures"}
    (folder / "config.json").write_text(json.dumps(kept | {"model_type": "ernie4_5"}))
    ran = routing(folder, "x")
    assert ran.code == 2 and "a dense model has no router: each token goes through all of its weights" in ran.err


def test_a_terminal(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    with Terminal("routing", untrained, TEXT, "--backend", "reference", "--threads", "1") as terminal:
        seen = terminal.rest()
    assert "\x1b[38;5;" in seen
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen).splitlines()
    assert any(line.startswith("layer 3   ") and "█" in line for line in lines), seen
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("terminal", "no_color", "term", "coloured"),
    [
        (True, "", "xterm", True),
        (True, "1", "xterm", False),
        (True, "", "dumb", False),
        (False, "", "xterm", False),
    ],
)
def test_who_is_shown_colours(
    terminal: bool, no_color: str, term: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert colourful() == coloured
