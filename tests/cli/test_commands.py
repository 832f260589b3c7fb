"""What somebody types who does not know the commands yet: help, wrong names, the shell's completion."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ernie_rt.cli import completion
from ernie_rt.cli.group import ELSEWHERE
from ernie_rt.cli.store import Store
from ernie_rt.conformance.storage import parse_storage
from support.commands import START, command
from support.terminal import Terminal


@pytest.mark.parametrize("group", [(), ("backends",), ("cache",)])
def test_summaries_are_whole(group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = command(*group, "--help")
    _, _, commands = ran.out.partition("\nCommands:\n")
    assert ran.code == 0 and commands and "..." not in commands


def test_help_and_version_are_words_too() -> None:
    assert command("help") == command("--help") and command("help").code == 0
    assert command("help", "run") == command("run", "--help")
    assert command("help", "cache", "remove") == command("cache", "remove", "--help")
    assert command("version") == command("-V") == command("--version") and command("-V").out.startswith("ernie-rt 0")
    assert command("run", "--help").out.startswith("Usage: ernie-rt run ")


@pytest.mark.parametrize("word", ELSEWHERE)
def test_commands_of_other_programs_lead_on(word: str) -> None:
    ran = command(word, "x")
    assert (ran.code, ran.out) == (2, "") and f"No such command '{word}'. {ELSEWHERE[word]}" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu", "demo"), "No such command 'rnu'. Did you mean 'run'?"),
        (("run", "Dmo", "hi"), "Did you mean 'demo' or 'demo-vl'? Check the spelling"),
        (("run", "0.3b-bas", "hi"), "Did you mean '0.3B-Base'"),
        (("run", "demo", "hi", "--backend", "egaer"), "Did you mean 'eager'? `ernie-rt backends` lists them"),
        (("conform", "refrence"), "Did you mean 'reference'?"),
        (
            ("run", "demo", "hi", "--backend", "reference", "--device", "CPU"),
            "Did you mean 'cpu'? It runs on cpu alone",
        ),
        (("run", "demo", "hi", "--dtype", "fp32"), "unknown dtype 'fp32'; expected auto or one of float64, "),
        (("graph", "demo", "--dtype", "bfloat"), "Did you mean 'bfloat16'"),
        (("run", "demo", "hi", "--bakend", "eager"), "No such option: --bakend (Possible options: --backend)"),
        (("quantize", "demo", "x", "--weights", "int5"), "Invalid value for '--weights': 'int5' is not one of"),
        (("run", "demo", "hi", "--threads", "99999999"), "threads is not possible; expected 1 to 1024; found 99999999"),
        (("run", "demo", "hi", "--max-context", "0"), "--max-context is not possible; expected 1 to 2048"),
        (("run", "demo", "hi", "--max-context", "3k"), "--max-context is not possible; expected 1 to 2048"),
    ],
)
def test_wrong_names_and_values(arguments: tuple[str, ...], message: str) -> None:
    ran = command(*arguments)
    assert ran.code == 2 and message in ran.err and "alue error" not in ran.err


def test_what_a_shell_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for folder in ("models/ERNIE", "models/.hidden", "drafts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data.txt").touch()
    assert completion.models("d") == ["demo", "demo-vl", "drafts/"]
    assert completion.models("models/") == ["models/ERNIE/"] and completion.models("nowhere/x") == []
    assert f"{tmp_path}/models/" in completion.models(f"{tmp_path}/mo")
    assert {"0.3B", "0.3B-Base", "21B-A3B", "demo"} <= set(completion.models(""))
    assert completion.backends("") == ["auto", "cudagraph", "eager", "onnx", "reference"]
    assert completion.backends("e") == ["eager"]
    assert completion.formats("") == ["onnx"]
    assert {"auto", "cpu"} <= set(completion.devices("")) and completion.devices("c")[0] == "cpu"
    assert completion.dtypes("b") == ["bfloat16"] and completion.levels("l1") == ["L1"]
    assert completion.storages("int4") == ["int4", "int4/64", "int4/tiled"]
    assert all(parse_storage(name) is not None for name in completion.storages("int"))
    store = Store(tmp_path / "state" / "ernie-rt" / "chat")
    assert completion.conversations("") == []
    store._make()
    (tmp_path / "state" / "ernie-rt" / "chat" / "ducks.json").write_text("{}")
    assert completion.conversations("d") == ["ducks"]


def test_the_shell_is_answered() -> None:
    asks = {"_ERNIE_RT_COMPLETE": "complete_bash", "COMP_WORDS": "ernie-rt run demo --backend e", "COMP_CWORD": "4"}
    ran = subprocess.run(START, env=os.environ | asks, capture_output=True, text=True)
    assert ran.stdout.split() == ["eager"]


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with Terminal("backends") as terminal:
        lines = terminal.rest().splitlines()
        assert terminal.process.wait(20) == 0
    assert len(lines) > 4 and max(map(len, lines)) <= 60
    assert max(map(len, command("backends").out.splitlines())) > 60, "a pipe gets a row a line"
