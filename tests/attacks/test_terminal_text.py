"""What strangers wrote, as names of files, in files and as arguments: a terminal shows it, and obeys none of it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from ernie_rt import cli
from ernie_rt.weights.hub import DEMO
from support.commands import built, command

EVIL = "a\x1b]52;c;aGk=\x07\x1b[2J\x9b1m\u202egnp\u2066\u2069\u202ab"
"""Writes to the clipboard, clears the screen, and shows letters in another order."""
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OURS = re.compile(r"\r|\x1b\[(K|2K|1A|\?25[lh]|\d+(;\d+)*m)")
"""What the commands themselves write: lines that are changed, colours."""


class Screen(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def on_a_terminal(*arguments: object, stdin: str = "") -> str:
    """What a terminal gets of `ernie-rt ARGUMENTS`, both streams, without what is ours."""
    shown = [io.BytesIO(), io.BytesIO()]
    out, err = (Screen(each, "utf-8", write_through=True) for each in shown)
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    with (
        patch.object(cli, "app", built()),
        patch.object(sys, "argv", ["ernie-rt", *map(str, arguments)]),
        patch.dict(os.environ, {"TERM": "xterm"}),
        patch.multiple(sys, stdin=given, stdout=out, stderr=err),
        pytest.raises(SystemExit),
    ):
        cli.main()
    return OURS.sub("", b"".join(each.getvalue() for each in shown).decode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose folder, template, chat settings and generation config say evil things."""
    folder = tmp_path_factory.mktemp("models") / EVIL
    shutil.copytree(DEMO, folder)
    defaults = json.loads((folder / "generation_config.json").read_text()) | {EVIL: EVIL, "cache_implementation": EVIL}
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {EVIL: EVIL}, EVIL: EVIL}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / EVIL).touch()
    return folder


ARGUMENTS: dict[str, Callable[[Path], list[object]]] = {
    "an argument too many": lambda folder: ["models", folder],
    "two too many": lambda folder: ["verify", folder, folder, EVIL],
    "an option that is none": lambda folder: ["models", f"--{EVIL}"],
    "a value that is none": lambda folder: ["graph", "demo", "--level", EVIL],
    "a number that is none": lambda folder: ["plan", "demo", "--sequences", EVIL],
    "a command that is none": lambda folder: [EVIL],
    "a plugin that is none": lambda folder: ["-p", EVIL, "models"],
    "a model that is none": lambda folder: ["tokenize", EVIL, "x"],
    "a device that is none": lambda folder: ["plan", "demo", "--device", EVIL],
    "a backend that is none": lambda folder: ["explain", "demo", "--backend", EVIL],
    "an entry that is none": lambda folder: ["cache", "remove", EVIL],
    "a file that is none": lambda folder: ["tokenize", "demo", "-f", folder / "absent"],
    "a receipt that is none": lambda folder: ["replay", folder / "config.json"],
    "requests that are none": lambda folder: ["batch", folder / "config.json", "-o", folder / "out"],
    "keys that are none": lambda folder: ["serve", "demo", "--api-key-file", folder / "absent"],
    "an address that is none": lambda folder: ["bench", "serve", "--base-url", EVIL],
    "a picture that is none": lambda folder: ["run", "demo-vl", "x", "--image", folder / "config.json"],
    "a folder that is no export": lambda folder: ["verify", folder],
    "a folder above": lambda folder: ["plan", folder.parent],
    "a graph": lambda folder: ["graph", folder],
    "a plan": lambda folder: ["plan", folder],
    "a reason": lambda folder: ["explain", folder],
    "pieces": lambda folder: ["tokenize", folder, EVIL],
    "pieces as JSON": lambda folder: ["tokenize", folder, EVIL, "--json"],
    "text of ids": lambda folder: ["tokenize", "demo", "--ids", "68 69 20"],
    "remarks": lambda folder: ["run", folder, EVIL, "-v", "--why", "-n", "1", "--backend", "reference"],
    "a map": lambda folder: ["routing", folder, EVIL, "--backend", "reference", "-v"],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_command_on_a_terminal(name: str, folder: Path) -> None:
    shown = on_a_terminal(*ARGUMENTS[name](folder))
    assert shown and OBEYED.findall(shown) == []


@pytest.mark.parametrize("notes", [("quantize", "--weights", "int8"), ("export", "--weights", "int8")])
def test_what_a_writer_notes(notes: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    name, *options = notes
    form = ["onnx"] if name == "export" else []
    if form:
        pytest.importorskip("onnxruntime")
    shown = on_a_terminal(name, *form, folder, tmp_path / EVIL, *options)
    assert "sha256" in shown and OBEYED.findall(shown) == []
    shown = on_a_terminal("verify", tmp_path / EVIL)
    assert "sha256" in shown and OBEYED.findall(shown) == []


def test_a_pipe_gets_it_as_it_is(folder: Path) -> None:
    ids = json.loads(command("tokenize", folder, EVIL, "--json").out)["ids"]
    assert command("tokenize", folder, "--ids", "--", " ".join(map(str, ids))).out == f"{EVIL}\n"
