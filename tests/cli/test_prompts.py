"""Texts that Windows wrote, or a shell cut, mean what they mean on Unix, whichever way they come."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from ernie_rt.cli.prompts import as_unix, decode_prompt, from_argument
from ernie_rt.errors import PromptError
from support.commands import command
from support.says import Says
from support.scripted import write_chat_checkpoint
from support.templates import PLAIN

pytestmark = pytest.mark.usefixtures("one_renderer")

TEXT = "Capital?\n你好\n"
WRITTEN = {
    "unix": TEXT.encode(),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "mark": codecs.BOM_UTF8 + TEXT.encode(),
    "notepad": codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(),
    "powershell": codecs.BOM_UTF16_LE + TEXT.replace("\n", "\r\n").encode("utf-16-le"),
    "utf-16-be": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_checkpoint(tmp_path_factory.mktemp("plain") / "model", PLAIN)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("how", WRITTEN)
def test_a_prompt_by_any_way(how: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(plain, monkeypatch, *["x</s>"] * 7)
    (tmp_path / "prompt").write_bytes(WRITTEN[how])
    run = ("run", plain, "--backend", "scripted")
    assert command(*run, "--file", tmp_path / "prompt").code == 0
    assert command(*run, stdin=WRITTEN[how]).code == 0
    assert command(*run, "-", stdin=WRITTEN[how]).code == 0
    assert command(*run, "--file", "-", stdin=WRITTEN[how]).code == 0
    rendered = "<|begin_of_sentence|>User: Capital?\n你好\nAssistant: "
    assert says.asked == [rendered] * 4
    assert command(*run, "-", "--raw", stdin=WRITTEN[how]).code == 0
    assert says.asked[4] == TEXT
    ran = command("chat", plain, "--backend", "scripted", "--forget", stdin=WRITTEN[how])
    assert (ran.code, ran.out) == (0, "x\nx\n")
    assert says.asked[5] == "<|begin_of_sentence|>User: Capital?\nAssistant: "
    assert says.asked[6].endswith("User: 你好\nAssistant: ")
    tokens = command("tokenize", plain, "--json", stdin=WRITTEN[how])
    assert tokens.out == command("tokenize", plain, "--json", stdin=WRITTEN["unix"]).out


@pytest.mark.parametrize("how", ["crlf", "notepad", "powershell"])
def test_quotes_and_commands_in_a_talk(how: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = '"""one\ntwo\n"""\n/system Brief.\nthree\n/exit\nnever\n'.replace("\n", "\r\n")
    mark = {"crlf": b"", "notepad": codecs.BOM_UTF8, "powershell": codecs.BOM_UTF16_LE}[how]
    data = mark + typed.encode("utf-16-le" if how == "powershell" else "utf-8")
    says = Says(plain, monkeypatch, "x</s>", "y</s>")
    ran = command("chat", plain, "--backend", "scripted", stdin=data)
    assert (ran.code, ran.out) == (0, "x\ny\n")
    assert says.asked[0].endswith("User: one\ntwo\nAssistant: ")
    assert says.asked[1].startswith("<|begin_of_sentence|>Brief.\n") and says.asked[1].endswith(
        "User: three\nAssistant: "
    )


def test_files_that_were_put_together(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cat a.txt b.txt`: the second file's mark is in the middle."""
    says = Says(plain, monkeypatch, "x</s>", "y</s>")
    both = codecs.BOM_UTF8 + b"one\r\n" + codecs.BOM_UTF8 + b"two"
    assert command("chat", plain, "--backend", "scripted", stdin=both).code == 0
    assert says.asked[1].endswith("User: two\nAssistant: ")


def test_an_argument_that_a_shell_read_from_a_file(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`"$(cat notepad.txt)"` cuts the last newline and leaves the rest."""
    says = Says(plain, monkeypatch, "x</s>")
    ran = command("run", plain, "\ufeffone\r\ntwo\r", "--system", "\ufeffBrief.\r", "--backend", "scripted")
    assert ran.code == 0 and says.asked == ["<|begin_of_sentence|>Brief.\nUser: one\ntwo\nAssistant: "]


@pytest.mark.parametrize("text", ["你好", "\ufeff你好\r"])
def test_an_argument_in_a_locale_that_lacks_its_characters(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda given: given.encode("ascii", "surrogateescape"))
    assert from_argument(text.encode().decode("ascii", "surrogateescape")) == "你好"
    with pytest.raises(PromptError, match="the prompt is not UTF-8; found byte 0xe9 at 3"):
        from_argument("caf\udce9")


def test_what_is_not_of_windows_stays() -> None:
    assert as_unix("a\rb \n\n \ufeff\r\r\n") == "a\rb \n\n \ufeff\r\n"
    assert decode_prompt(b"") == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\xff\xfe", "the prompt is not UTF-8; found byte 0xff at 1"),
        (codecs.BOM_UTF16_LE + b"a\0b", "the prompt is not UTF-16; found byte 0x62 at 4"),
        (codecs.BOM_UTF16_LE + b"\0\xd8", "the prompt is not UTF-16"),
        ("hi".encode("utf-16-le"), "null characters, as UTF-16 without a mark does. Save it as UTF-8"),
        ("hi".encode("utf-16-be"), "null characters, as UTF-16 without a mark does. Save it as UTF-8"),
        ("中hi".encode("utf-16-le"), "null characters"),
        ("hi\n你好".encode("utf-32-be"), "null characters"),
    ],
)
def test_what_is_no_text(data: bytes, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        decode_prompt(data)
    assert message in str(caught.value)
