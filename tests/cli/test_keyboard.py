"""What is typed or pasted in a terminal is taken whole, wherever standard output goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.templates import PLAIN
from support.terminal import Terminal

LONG = "word " * 1300 + "tail"  # longer than a line that a terminal edits by itself, and within the context
OPTIONS = ("--backend", "reference", "-n", "2")


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(untrained, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(PLAIN)
    return folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ernie-rt" / "chat"


def asked(file: Path) -> list[str]:
    return [message["content"] for message in json.loads(file.read_text())["messages"] if message["role"] == "user"]


@pytest.mark.parametrize("elsewhere", [("stdout",), ("stdout", "stderr")], ids=["> file", "&> file"])
def test_a_long_line_is_whole_and_edited(elsewhere: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    with (
        (tmp_path / "out").open("w") as out,
        Terminal("chat", folder, *OPTIONS, **dict.fromkeys(elsewhere, out)) as terminal,
    ):
        terminal.wait(">>> ")
        terminal.type(f"{LONG}xy\x7f\x7f\n/save {tmp_path}/x.json\n/exit\n")
        terminal.rest()
        assert terminal.process.wait(30) == 0
    assert asked(tmp_path / "x.json") == [LONG] and (tmp_path / "out").read_text()


def test_a_long_line_is_whole_that_is_typed_while_an_answer_comes(folder: Path, tmp_path: Path) -> None:
    with Terminal("chat", folder, "--backend", "reference", "-n", "100") as terminal:
        terminal.wait(">>> ")
        terminal.type("hello\n")
        terminal.wait("hello")
        terminal.wait(" ")  # the answer has begun: random words, with spaces between them
        terminal.type(f"/system {LONG}\n/save {tmp_path}/x.json\n/exit\n")
        terminal.rest()
        assert terminal.process.wait(30) == 0
    assert json.loads((tmp_path / "x.json").read_text())["messages"][0]["content"] == LONG


def test_what_is_pasted_at_once_is_one_message(folder: Path, tmp_path: Path, state: Path) -> None:
    with Terminal("chat", folder, *OPTIONS) as terminal:
        terminal.wait("\x1b[?2004h")  # the terminal is asked to mark what is pasted
        terminal.wait(">>> ")
        terminal.type("\x1b[200~def f():\r    return 1\r\r# 你好\x1b[201~")
        terminal.type("\n")
        terminal.wait(">>> ")
        terminal.type(f"/save {tmp_path}/x.json\n\x04")
        terminal.rest()
        assert terminal.process.wait(30) == 0
    assert asked(tmp_path / "x.json") == ["def f():\n    return 1\n\n# 你好"]


def test_chinese_is_typed_in_the_c_locale(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers have it: some of its bytes would be commands of the line editor."""
    monkeypatch.setenv("LC_ALL", "C")
    with Terminal("chat", folder, *OPTIONS) as terminal:
        terminal.wait(">>> ")
        terminal.type("你好,世界\n")
        terminal.wait(">>> ")
        terminal.type(f"/save {tmp_path}/x.json\n\x04")
        terminal.rest()
        assert terminal.process.wait(30) == 0
    assert asked(tmp_path / "x.json") == ["你好,世界"]


def test_the_end_of_input_between_quotes_sends_nothing(folder: Path, tmp_path: Path) -> None:
    with Terminal("chat", folder, *OPTIONS) as terminal:
        terminal.wait(">>> ")
        terminal.type('"""half\n')
        terminal.wait("... ")
        terminal.type("\x04")
        terminal.wait('the input ended before the closing """. What was begun is not sent')
        terminal.wait(">>> ")
        terminal.type("whole\n")
        terminal.wait(">>> ")
        terminal.type(f"/save {tmp_path}/x.json\n\x04")
        terminal.rest()
        assert terminal.process.wait(30) == 0
    assert asked(tmp_path / "x.json") == ["whole"]


def test_a_prompt_that_is_typed(folder: Path) -> None:
    """`ernie-rt tokenize MODEL -`: lines until Ctrl-D."""
    with Terminal("tokenize", folder, "-", "--json") as terminal:
        terminal.wait_for_keys()
        terminal.type(f"{LONG}\n")
        terminal.type("second\n\x04")
        shown = terminal.rest()
        assert terminal.process.wait(30) == 0
    found = json.loads(shown[shown.rindex('{"count"') :])
    assert found["text"] == f"{LONG}\nsecond\n"
