"""What is written is UTF-8, or escapes that are remarked upon; no text steers a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_rt.cli.loaded import progress_bar
from ernie_rt.cli.output import AnswerWriter, say, status, write
from ernie_rt.generation.stream import Piece
from support.commands import START, command
from support.scripted import write_chat_checkpoint
from support.terminal import Terminal

NARROW = ["ascii", "cp1252", "gbk", "utf-16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("plain") / "model", None)


@pytest.mark.parametrize("encoding", NARROW)
def test_a_pipe_gets_utf8(encoding: str, folder: Path) -> None:
    ran = command("tokenize", folder, "--ids", "--", ids(folder, "北京 🙂 é"), encoding=encoding)
    assert (ran.code, ran.out, ran.err) == (0, "北京 🙂 é\n", "")


def ids(folder: Path, text: str) -> str:
    return " ".join(map(str, json.loads(command("tokenize", folder, text, "--json").out)["ids"]))


@pytest.mark.parametrize("habit", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_process_gives_utf8_on_both_streams(habit: dict[str, str], folder: Path) -> None:
    def ask(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*START, *map(str, arguments)], env=os.environ | habit, capture_output=True)

    ran = ask("tokenize", folder, "--ids", ids(folder, "北京"))
    assert (ran.returncode, ran.stdout.decode(), ran.stderr) == (0, "北京\n", b"")
    ran = ask("tokenize", folder, "北京", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["text"] == "北京"
    (folder / "北京").touch()
    ran = ask("tokenize", folder / "北京")
    assert ran.returncode == 2 and b"?" not in ran.stderr


def test_a_terminal_of_another_encoding_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    with Terminal("tokenize", folder, "--ids", ids(folder, "北京北京")) as terminal:
        shown = terminal.rest()
        assert terminal.process.wait(20) == 0
    assert "\\u5317" in shown and "?" not in shown
    remark = "this terminal shows iso8859-1 alone: other characters are written as escapes; set it to UTF-8"
    assert shown.count(remark) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_help_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([*START, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (1, "ernie-rt: No space left on device\n")


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from ernie_rt.__main__ import main
main()
"""


def test_an_interrupt_while_the_commands_are_imported() -> None:
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


STEERING = "a\x1b[2J\x1b]52;c;aGk=\x07b\x9b1mc\u202egnp\u2066d\te"


def test_no_text_steers_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.StringIO())
    write(STEERING), say(STEERING)
    assert sys.stdout.getvalue() == STEERING and sys.stderr.getvalue() == f"{STEERING}\n", "a pipe gets it as it is"
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Screen())
    write(STEERING), say(STEERING)
    harmless = "a[2J]52;c;aGk=b1mcgnpd\te"
    assert (sys.stdout.getvalue(), sys.stderr.getvalue()) == (harmless, f"{harmless}\n")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("term", "no_color", "styled", "lines"),
    [("xterm", "", True, True), ("xterm", "1", False, True), ("dumb", "", False, False)],
)
def test_no_color_and_dumb_terminals(
    term: str, no_color: str, styled: bool, lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    with AnswerWriter() as writer:
        writer.show(Piece(0, "", None, reasoning="hm"))
    assert ("\x1b[2m" in screen.getvalue()) is styled and "hm" in screen.getvalue()
    with status() as tell:
        tell("one")
        tell("two\x1b[2J" + "x" * 500)
    told = screen.getvalue()
    assert told.endswith("\r\x1b[K" if lines else "hm\n") and ("two[2Jx" in told) is lines
    assert max(len(line.removeprefix("\x1b[K")) for line in told.split("\r")) < 80
    with progress_bar("loading", then="comparing") as progress:
        assert (progress is not None) is lines
        if progress is not None:
            progress(1, 2)
            progress(2, 2)
    assert ("comparing" in screen.getvalue()) is lines
