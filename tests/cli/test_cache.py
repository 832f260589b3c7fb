"""`ernie-rt cache`."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from ernie_rt.cli.cache import parse_age
from ernie_rt.errors import OptionError
from ernie_rt.location import locate
from ernie_rt.weights.cache import CachedSource, cached_weights, entries
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.quantize import Quantization
from support.commands import command
from support.drawn import DENSE, write_drawn

MODELS = ("small", "middle", "large")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of three models: the first was used longest ago."""
    home = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        for age, (name, vocabulary) in enumerate(zip(MODELS, (200, 2000, 20000), strict=True)):
            folder = write_drawn(home / name, DENSE | {"vocab_size": vocabulary})
            with closing(cached_weights(folder, locate(folder).config, Quantization(4, clip_search=False))):
                pass
            (entry,) = (entry for entry in entries() if entry.model == name)
            used = time.time() - (30 - 10 * age) * 86400
            os.utime(entry.path / MANIFEST, (used, used))
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(filled, tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "ernie-rt" / "quantized"


def kept() -> list[str]:
    return [entry.model for entry in entries()]


def test_the_list(home: Path) -> None:
    ran = command("cache")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert re.split(" {2,}", lines[0]) == ["MODEL", "WEIGHTS", "SIZE", "LAST USED", "ID"]
    assert [line.split()[:2] for line in lines[1:4]] == [[name, "int4/32"] for name in reversed(MODELS)]
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 10 * 86400))
    assert re.fullmatch(rf"large +int4/32 +1\.\d MiB +{day} \d\d:\d\d +[0-9a-f]{{12}}", lines[1])
    assert re.fullmatch(rf"1\.\d MiB in {home}", lines[4]) and len(lines) == 5


def test_json(home: Path) -> None:
    found = json.loads(command("cache", "--json").out)
    assert [entry["model"] for entry in found["entries"]] == list(reversed(MODELS))
    assert found["folder"] == str(home) and found["nbytes"] == sum(entry["nbytes"] for entry in found["entries"])
    first = found["entries"][0]
    assert first.keys() == {"id", "path", "model", "weights", "nbytes", "used", "whole"} and first["whole"] is True
    gone = json.loads(command("cache", "remove", first["id"], "--json").out)
    assert gone == {"removed": [first]} and kept() == ["middle", "small"]


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "ernie-rt" / "quantized"
    assert command("cache").out == f"0 B in {folder}\n"
    assert json.loads(command("cache", "--json").out) == {"folder": str(folder), "nbytes": 0, "entries": []}
    for arguments in (("--all",), ("--keep", "0"), ("--older-than", "0h")):
        ran = command("cache", "remove", *arguments)
        assert (ran.code, ran.out) == (0, "nothing to remove\n")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "stay"),
    [
        (("middle",), ["large", "small"]),
        (("small", "large", "small"), ["middle"]),
        (("--all",), []),
        (("--older-than", "25d"), ["large", "middle"]),
        (("--older-than", "2w"), ["large"]),
        (("--older-than", "9999d"), ["large", "middle", "small"]),
        (("--keep", "1GiB"), ["large", "middle", "small"]),
        (("--keep", "1.5MiB"), ["large"]),
        (("--keep", "1MiB"), []),
        (("--keep", "0"), []),
    ],
    ids=" ".join,
)
def test_removing(home: Path, arguments: tuple[str, ...], stay: list[str]) -> None:
    """What was used longest ago goes first: a model that is too large does not stay for the sake of older ones."""
    ran = command("cache", "remove", *arguments)
    assert (ran.code, ran.err) == (0, "") and kept() == stay
    said = [line.split()[:2] for line in ran.out.splitlines()]
    removed = [["removed", name] for name in reversed(MODELS) if name not in stay]
    assert sorted(said) == sorted(removed) or (not removed and ran.out == "nothing to remove\n")
    assert sorted(path.name for path in home.iterdir()) == sorted(entry.path.name for entry in entries())


def test_by_id(home: Path) -> None:
    ids = {entry.model: entry.path.name for entry in entries()}
    assert command("cache", "remove", ids["small"][:8], ids["large"]).code == 0 and kept() == ["middle"]
    assert command("cache", "remove", ids["middle"][:7]).code == 2 and kept() == ["middle"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to remove; expected exactly one of NAME, --all, --older-than, --keep"),
        (("small", "--all"), "say what to remove"),
        (("--keep", "1GiB", "--older-than", "3d"), "say what to remove"),
        (("tiny",), "nothing of this name is in the cache; found 'tiny'. See `ernie-rt cache`"),
        (("small", "tiny"), "nothing of this name"),
        (("",), "nothing of this name"),
        (("--older-than", "3"), "not an age; expected hours, days or weeks"),
        (("--older-than", "-3d"), "not an age"),
        (("--keep", "much"), "not a size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals(home: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = command("cache", "remove", *arguments)
    assert (ran.code, ran.out) == (2, "") and message in ran.err
    assert len(kept()) == 3


def test_what_cannot_be_removed_is_said(home: Path) -> None:
    large, middle, _ = entries()
    (middle.path / "notes.txt").write_text("mine")
    with closing(CachedSource(large.path, locate(large.path).config)):
        ran = command("cache", "remove", "--all")
    assert ran.code == 1 and re.fullmatch(r"removed small int4/32 [0-9a-f]{12}, [\d.]+ KiB\n", ran.out)
    assert f"{large.path}: another process is writing it or using it. Wait until it ends" in ran.err
    assert f"{middle.path}: not removed, since something else lies in it; found 1: 'notes.txt'" in ran.err
    assert kept() == ["large", "middle"]


def test_unfinished_ones_are_named_and_go_too(home: Path) -> None:
    small = entries()[-1].path
    small.rename(small.with_name(f"{small.name}.partial"))
    assert command("cache").out.splitlines()[3].endswith(f"{small.name[:12]} (unfinished)")
    assert command("cache", "remove", "small").code == 0 and kept() == ["large", "middle"]


def test_a_name_steers_no_terminal(home: Path) -> None:
    path = entries()[0].path / MANIFEST
    data = json.loads(path.read_text())
    data["origin"]["model"] = "a\x1b[2Jb"
    data["plan"]["weights"] = "\x1b[31m"
    path.write_text(json.dumps(data))
    for arguments in (("cache",), ("cache", "remove", "--all")):
        ran = command(*arguments)
        assert "\x1b" not in ran.out and "a\\x1b[2Jb" in ran.out


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    ran = command("cache")
    assert (ran.code, ran.out) == (1, "") and "Set XDG_CACHE_HOME to the absolute path of a folder" in ran.err


def test_ages() -> None:
    assert [parse_age(text) for text in ("12h", " 30D", "8w")] == [12 * 3600, 30 * 86400, 56 * 86400]
    for text in ("", "3", "3m", "1.5d", "d", "99999999d"):
        with pytest.raises(OptionError, match="not an age"):
            parse_age(text)
