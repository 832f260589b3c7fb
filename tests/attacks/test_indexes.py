"""Shards that lie elsewhere, or are no files. CVE-2026-69112: an index that names a pipe blocks its reader for ever.
What `run` says of each name and kind is in tests/cli/test_bad_input.py; here is every door, and what is opened."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from ernie_rt import files
from ernie_rt.errors import ErnieRtError
from ernie_rt.weights.checkpoint import Checkpoint
from support.attempts import accepted, accepted_each, refused, refused_each
from support.hostile import DOORS, INDEX, SINGLE, Break, changed, copied, linked, put

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
READERS = ("plan", "quantize", "export")


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Path:
    """A checkpoint in one shard that an index names, beside a secret."""
    (tmp_path / "secret.safetensors").write_bytes((untrained / SINGLE).read_bytes())
    folder = copied(untrained, tmp_path / "model")
    (folder / SINGLE).rename(folder / SHARD)
    with_index({})(folder)
    return folder


def with_index(weight_map: dict[str, Any], **fields: Any) -> Break:
    return put(INDEX, {"weight_map": {"model.norm.weight": SHARD} | weight_map, **fields})


NAMES = (
    "../secret.safetensors", "/etc/passwd", "/dev/zero", "/proc/self/fd/0", "/proc/self/environ", "a/b.safetensors",
    "./" + SHARD, SHARD + "/", "..", ".", "", " ", "C:\\x", "\\\\host\\x", "file:///etc/passwd", "https://example.com/x",
    "x\0y", f"{SHARD}\0", f"{SHARD}\n", "\x1b[2J", "~/x", "$HOME/x", "*", "x" * 300, "..%2fsecret.safetensors",
    "m\u043edel-00001-of-00002.safetensors", "\uff4dodel.safetensors", "\u2024\u2024/x", "a\u2215b", "con ",
)  # fmt: skip
"""Paths, what looks like one of a folder's own names, and what somebody might make a path of."""


@pytest.mark.parametrize("door", READERS)
def test_names_that_are_paths(door: str, folder: Path) -> None:
    cases = [(with_index({"x": name}), "UnsafePathError", "") for name in (NAMES if door == "plan" else NAMES[:6])]
    refused_each(DOORS[door], folder, cases, "could lead out of its folder")


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, [SHARD], {"file": SHARD}])
def test_shards_that_are_no_names(value: Any, folder: Path) -> None:
    with_index({"x": value})(folder)
    refused(DOORS["plan"], folder, "JsonError", "weight_map is not an object from tensor names to file names")


def device(number: int, kind: int = stat.S_IFCHR) -> Break:
    def make(folder: Path) -> None:
        (folder / SHARD).unlink()
        try:
            os.mknod(folder / SHARD, kind | 0o600, os.makedev(1, number))
        except OSError as error:
            pytest.skip(f"no devices here: {error}")

    return make


def bound(folder: Path) -> None:
    """A socket; its path is short."""
    (folder / SHARD).unlink()
    here = Path.cwd()
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(SHARD)
    os.chdir(here)


def pipe(folder: Path) -> None:
    (folder / SHARD).unlink()
    os.mkfifo(folder / SHARD)


SPECIAL: dict[str, tuple[Break, str]] = {
    "a pipe": (pipe, "found a named pipe"),
    "a link to a pipe": (lambda f: (os.mkfifo(f / "pipe"), linked(SHARD, "pipe")(f)), "found a named pipe"),
    "a folder": (lambda f: ((f / SHARD).unlink(), (f / SHARD).mkdir()), "found a folder"),
    "a socket": (bound, "found a socket"),
    "a terminal": (linked(SHARD, "/dev/tty"), "found a device"),
    "zeros": (linked(SHARD, "/dev/zero"), "found a device"),
    "a device of the folder's own": (device(5), "found a device"),
    "a disk": (device(1, stat.S_IFBLK), "found a device"),
    "itself": (linked(SHARD, SHARD), "cannot be opened"),
    "two links in a ring": (lambda f: (linked(SHARD, "ring")(f), (f / "ring").symlink_to(SHARD)), "cannot be opened"),
    "a link to nothing": (linked(SHARD, "nowhere"), "shards are missing"),
    "memory": (linked(SHARD, "/proc/self/mem"), "the file is empty"),
    "the kernel's log": (linked(SHARD, "/proc/kmsg"), "the file is empty"),
    "an open file": (linked(SHARD, "/proc/self/fd/99"), "shards are missing"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_shards_that_are_no_files(name: str, folder: Path) -> None:
    damage, words = SPECIAL[name]
    damage(folder)
    refused(DOORS["plan"], folder, "InputError", words, f"/{SHARD}" if "missing" not in words else SHARD)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json", "added_tokens.json"]
)
def test_what_would_block_is_not_waited_for(name: str, untrained: Path, tmp_path: Path) -> None:
    """The kernel's log is a regular file, by what the system says of it."""
    if not Path("/proc/kmsg").exists():
        pytest.skip("no such file here")
    folder = copied(untrained, tmp_path / "model")
    linked(name, "/proc/kmsg")(folder)
    refused(DOORS["encode"], folder, "InputError", f"/{name}")


@pytest.mark.parametrize("door", ["quantize", "export"])
def test_who_copies_takes_no_file_of_another_folder(door: str, untrained: Path, tmp_path: Path) -> None:
    """Weights may lie elsewhere, since they are read, not copied; what is copied along is the folder's own."""
    folder = copied(untrained, tmp_path / "model")
    (tmp_path / "secret").write_bytes((folder / "tokenizer.model").read_bytes())
    for name in ("generation_config.json", "chat_template.jinja", "tokenizer.model"):
        linked(name, "../secret")(folder)
        refused(DOORS[door], folder, "UnsafePathError", f"{name}: a link that leaves its folder", home=tmp_path)
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes((tmp_path / "secret").read_bytes())
    linked("LICENSE", "../secret")(folder)
    accepted(DOORS[door], folder, tmp_path)
    assert not any((tmp_path / out / "LICENSE").exists() for out in ("quantized", "exported"))


def test_names_that_differ_in_case_alone(folder: Path) -> None:
    """Each is what it is called, and none stands for another."""
    (folder / SHARD.upper()).write_bytes(b"")
    (folder / "Config.json").write_text("[" * 1000)
    (folder / "TOKENIZER.MODEL").write_bytes(b"\xff")
    accepted(DOORS["plan"], folder)
    accepted(DOORS["encode"], folder)
    with_index({"model.norm.weight": SHARD.upper()})(folder)
    refused(DOORS["plan"], folder, "FileFormatError", "the file is empty")


def test_a_shard_under_two_names(folder: Path) -> None:
    """Every tensor is in two shards, then; which counts, the index says or nobody does."""
    os.link(folder / SHARD, folder / OTHER)
    names = json.loads((folder / SHARD).read_bytes()[8:].split(b"}}")[0] + b"}}")
    changed(INDEX, weight_map={name: OTHER for name in names if name != "__metadata__"})(folder)
    accepted(DOORS["plan"], folder)
    with_index({"x": OTHER})(folder)
    refused(DOORS["plan"], folder, "CheckpointError", "tensors are in several shards")


def test_sizes_that_are_none(folder: Path) -> None:
    totals = (-1, 0, 1.5, 10**300, True, None, "2,447,500", [], {}, 2**64)
    accepted_each(DOORS["plan"], folder, [with_index({}, metadata={"total_size": total}) for total in totals])


@pytest.mark.parametrize("first", ["file", "link"])
def test_a_name_that_changes_after_it_was_checked(first: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at once more when it is opened: what is a pipe by then blocks nobody."""
    member = files.member

    def swap(folder: Path, name: str, **options: Any) -> Path:
        path = member(folder, name, **options)
        if name == SHARD:
            path.unlink()
            os.mkfifo(path)
        return path

    if first == "link":
        (folder / SHARD).rename(folder / "data")
        (folder / SHARD).symlink_to("data")
    monkeypatch.setattr(files, "member", swap)
    refused(DOORS["plan"], folder, "UnsafePathError", "not a regular file; found a named pipe")


def test_links_that_change_all_the_time(folder: Path) -> None:
    """A good shard, a pipe, a folder and nothing take turns under one name while it is opened."""
    (folder / SHARD).rename(folder / "data")
    os.mkfifo(folder / "pipe")
    over = threading.Event()

    def turn() -> None:
        while not over.is_set():
            for target in ("data", "pipe", "/dev/zero", ".", "nowhere"):
                (folder / "next").symlink_to(target)
                (folder / "next").rename(folder / SHARD)

    turning = threading.Thread(target=turn)
    turning.start()
    opened = refusals = 0
    try:
        for _ in range(100):
            try:
                Checkpoint.open(folder).close()
                opened += 1
            except ErnieRtError:
                refusals += 1
    finally:
        over.set()
        turning.join()
    assert opened + refusals == 100
