"""Remembered digests."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.weights import stamps as module
from ernie_rt.weights.stamps import SETTLED_NS, Stamp, Stamps

DIGEST = "5d" * 32


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "made" / "stamps")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def later(path: Path) -> int:
    """A time at which the file has long been left alone."""
    return path.stat().st_ctime_ns + SETTLED_NS


def remembered(stamps: Stamps, path: Path) -> Stamp:
    stamp = Stamp.of(path.stat())
    stamps.remember(path, stamp, DIGEST, later(path))
    assert stamps.recall(path, stamp) == DIGEST
    time.sleep(0.02)  # the clock of a file system ticks
    return stamp


def test_what_is_kept(stamps: Stamps, path: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        remembered(stamps, path)
    finally:
        os.umask(before)
    (entry,) = stamps.folder.iterdir()
    assert stamps.folder.stat().st_mode & 0o777 == 0o700 and entry.stat().st_mode & 0o777 == 0o600
    assert json.loads(entry.read_text()).keys() == {"inode", "size", "mtime_ns", "ctime_ns", "sha256"}
    other = tmp_path / "other"
    other.write_bytes(b"content")
    assert stamps.recall(other, Stamp.of(other.stat())) is None
    (tmp_path / "link").symlink_to(path)
    assert stamps.recall(tmp_path / "link", Stamp.of(path.stat())) == DIGEST


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"CONTENT")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"CONTENT")
    path.with_name("new").replace(path)


def restore(path: Path) -> None:
    shutil.copy2(path, path.with_name("old"))
    path.with_name("old").replace(path)


def lengthen(path: Path) -> None:
    path.write_bytes(b"content and more")


@pytest.mark.parametrize("change", [rewrite, replace, restore, lengthen, Path.touch, Path.unlink])
def test_a_file_that_changed_is_another(stamps: Stamps, path: Path, change: Callable[[Path], None]) -> None:
    """Also when its size and modification time are as before, and also for who has the old one open."""
    stamp, status = remembered(stamps, path), path.stat()
    change(path)
    assert stamps.recall(path, stamp) is None
    if path.exists():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert stamps.recall(path, Stamp.of(path.stat())) is None
        assert stamps.recall(path, stamp) is None


@pytest.mark.parametrize("age", [0, 1, SETTLED_NS - 1, -1, -SETTLED_NS])
def test_a_file_that_has_just_changed_is_not_remembered(stamps: Stamps, path: Path, age: int) -> None:
    """Nor one that changes in the future, as files do when a clock was set back."""
    stamp = Stamp.of(path.stat())
    stamps.remember(path, stamp, DIGEST, stamp.ctime_ns + age)
    assert stamps.recall(path, stamp) is None and not stamps.folder.exists()


def test_nor_one_that_changed_while_it_was_hashed(stamps: Stamps, path: Path) -> None:
    stamp, began = Stamp.of(path.stat()), later(path)
    time.sleep(0.02)
    rewrite(path)
    stamps.remember(path, stamp, DIGEST, began)
    stamps.remember(path, Stamp.of(path.stat()), DIGEST, began)
    assert not stamps.folder.exists()


def test_nor_one_of_a_file_system_without_inodes(stamps: Stamps, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Stamp.of
    monkeypatch.setattr(Stamp, "of", lambda status: dataclasses.replace(of(status), inode=0))
    stamp = Stamp.of(path.stat())
    stamps.remember(path, stamp, DIGEST, later(path))
    assert stamps.recall(path, stamp) is None and not stamps.folder.exists()


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(entry: Path) -> None:
        data = json.loads(entry.read_text())
        change(data)
        entry.write_text(json.dumps(data))

    return edit


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(entry: Path) -> None:
        entry.rename(entry.with_name("away"))
        make(entry)

    return spoil


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda entry: entry.write_bytes(b""),
    "cut short": lambda entry: entry.write_bytes(entry.read_bytes()[:-1]),
    "a list": lambda entry: entry.write_bytes(b"[]"),
    "nested": lambda entry: entry.write_bytes(b'{"sha256":' * 50),
    "large": lambda entry: entry.write_bytes(entry.read_bytes() + b" " * 2000),
    "no digest": edited(lambda data: data.pop("sha256")),
    "another digest": edited(lambda data: data.update(sha256="x")),
    "a digest of another kind": edited(lambda data: data.update(sha256=[DIGEST])),
    "no change time": edited(lambda data: data.pop("ctime_ns")),
    "more": edited(lambda data: data.update(more=1)),
    "gone": Path.unlink,
    "a folder": in_its_place(Path.mkdir),
    "a pipe": in_its_place(os.mkfifo),
    "a link": in_its_place(lambda entry: entry.symlink_to("away")),
    "written by anybody": lambda entry: entry.chmod(0o606),
    "in a folder of anybody's": lambda entry: entry.parent.chmod(0o777),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_broken_store_means_hashing_again(stamps: Stamps, path: Path, spoil: Callable[[Path], object]) -> None:
    stamp = remembered(stamps, path)
    (entry,) = stamps.folder.iterdir()
    spoil(entry)
    assert stamps.recall(path, stamp) is None
    stamps.remember(path, stamp, DIGEST, later(path))
    mended = not entry.is_dir() and stamps.folder.stat().st_mode & 0o777 == 0o700
    assert stamps.recall(path, stamp) == (DIGEST if mended else None)


def test_the_store_of_somebody_else(stamps: Stamps, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root sees it that was given the user's environment: it neither believes it nor leaves files of its own."""
    stamp = remembered(stamps, path)
    before = [(each.name, each.stat()) for each in stamps.folder.iterdir()]
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert stamps.recall(path, stamp) is None
    stamps.remember(path, stamp, DIGEST, later(path))
    assert [(each.name, each.stat()) for each in stamps.folder.iterdir()] == before


def test_a_store_that_cannot_be_written(tmp_path: Path, path: Path) -> None:
    for folder in (path, path / "below", Path("/proc/no/such")):
        stamps, stamp = Stamps(folder), Stamp.of(path.stat())
        stamps.remember(path, stamp, DIGEST, later(path))
        assert stamps.recall(path, stamp) is None
    assert [*tmp_path.iterdir()] == [path]


def test_the_oldest_are_forgotten(stamps: Stamps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 8)
    paths = [tmp_path / str(n) for n in range(12)]
    for age, each in enumerate(paths):
        each.touch()
        remembered(stamps, each)
        newest = max(stamps.folder.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
        os.utime(newest, (age, age))
        if age == 0:
            left = stamps.folder / f".{newest.name}.0123456789abcdef.tmp"
            left.touch()
            os.utime(left, (0, 0))
            (stamps.folder / "mine").write_text("mine")
    known = [stamps.recall(each, Stamp.of(each.stat())) is not None for each in paths]
    assert known == [False] * 5 + [True] * 7
    assert not left.exists() and (stamps.folder / "mine").exists()


def test_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ERNIE_RT_STAMPS", raising=False)
    stamps = Stamps.of_user()
    assert stamps is not None and stamps.folder == tmp_path / "ernie-rt" / "stamps"
    monkeypatch.setenv("ERNIE_RT_STAMPS", "0")
    assert Stamps.of_user() is None
    monkeypatch.delenv("ERNIE_RT_STAMPS")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert Stamps.of_user() is None
