"""`ernie-rt tokenize`: text to ids and back, from every source of text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie_rt.location import locate
from support.commands import command
from support.tokenizers import ROWS, write_ernie_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_ernie_tokenizer(tmp_path_factory.mktemp("model"))
    (folder / "config.json").write_text(json.dumps({"model_type": "ernie4_5", "vocab_size": ROWS}))
    return folder


def test_a_line_for_each_token(folder: Path) -> None:
    ran = command("tokenize", folder, 'the "x\n🙂')
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split("\t") for line in ran.out.splitlines()]
    pieces = [json.loads(piece) for _, piece in lines]
    assert "".join(pieces) == 'the "x\n<0xF0><0x9F><0x99><0x82>'
    ids = " ".join(number for number, _ in lines)
    assert command("tokenize", folder, "--ids", ids).out == 'the "x\n🙂\n'


def test_json_from_a_file_and_standard_input(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("你好 </s>")
    ran = command("tokenize", folder, "--file", tmp_path / "text", "--json")
    found = json.loads(ran.out)
    assert found["text"] == "".join(found["pieces"]) == "你好 </s>"
    assert found["count"] == len(found["ids"]) and 2 not in found["ids"]
    assert command("tokenize", folder, "--json", stdin="你好 </s>".encode()).out == ran.out
    back = command("tokenize", folder, "--ids", "--json", stdin=json.dumps(found["ids"]).encode())
    assert back.out == ran.out


def test_special_ids_are_shown(folder: Path) -> None:
    assert command("tokenize", folder, "--ids", "1, 2,101304 103423").out == "<s></s><|IMAGE_START|>\n"


def test_nothing_is_no_token(folder: Path) -> None:
    assert command("tokenize", folder, "").out == ""
    assert json.loads(command("tokenize", folder, "", "--json").out)["ids"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ids", "1 x"), "not token ids"),
        (("--ids", "1 -2"), "not token ids"),
        (("--ids", "1.5"), "not token ids"),
        (("--ids", "103424"), "no such token id"),
        (("--file", "/nowhere/at/all"), "no such file"),
        (("text", "--file", "x"), "given twice"),
    ],
)
def test_wrong_input(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    ran = command("tokenize", folder, *arguments)
    assert ran.code == 2 and ran.out == "" and says in ran.err


def test_bytes_that_are_no_text(folder: Path) -> None:
    ran = command("tokenize", folder, stdin=b"a\xff")
    assert ran.code == 2 and "not UTF-8" in ran.err


def test_files_that_disagree(tmp_path: Path) -> None:
    """Which one was believed is said where people look, and never among the answer."""
    folder = write_ernie_tokenizer(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "ernie4_5", "vocab_size": ROWS}))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"]["100297"]["special"] = False
    path.write_text(json.dumps(settings))
    ran = command("tokenize", folder, "--json", "<|LOC_0|>")
    assert json.loads(ran.out)["ids"] == [100297]
    assert "a list of special tokens has '<|LOC_0|>', described as text, as which it counts" in ran.err
    assert locate(folder).notes == locate(folder).tokenizer.notes != ()
