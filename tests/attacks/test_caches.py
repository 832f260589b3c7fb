"""Folders that outlive a process: what others could have put there is not believed, waited for, or followed.

The quantised twins are judged in tests/weights/test_cache.py, runs that were interrupted in test_quantize.py there,
remembered digests in test_stamps.py, rows of prompts in tests/runtime/test_row_store.py, and what the hub's library
keeps in tests/weights/test_hub.py and tests/attacks/test_hub.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_rt.cli.keyboard import _is_mine
from ernie_rt.cli.store import user_store
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.weights.stamps import Stamp, Stamps
from support.terminal import Terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent.parent / "elsewhere")


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def shared(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


STRANGE: dict[str, Callable[[Path], None]] = {
    "a pipe": pipe, "a link": link, "a device": device, "a folder": folder, "writable by all": shared,
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_was_typed(name: str, tmp_path: Path) -> None:
    history = tmp_path / "typed"
    history.touch(mode=0o600)
    assert _is_mine(history)
    STRANGE[name](history)
    assert not _is_mine(history)
    assert not _is_mine(tmp_path / "absent")


@pytest.mark.parametrize("name", ["a pipe", "a link"])
def test_a_talk_with_a_history_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither hangs nor writes elsewhere."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    chat = tmp_path / "ernie-rt" / "chat"
    chat.mkdir(parents=True, mode=0o700)
    STRANGE[name](chat / "typed")
    with Terminal("chat", "demo", "--backend", "reference", "-n", "1") as terminal:
        terminal.wait(">>> ")
        terminal.wait_for_keys()
        terminal.type("/exit\n")
        assert terminal.process.wait(30) == 0
    assert not (chat.parent / "elsewhere").exists()


def test_conversations_where_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies there may be anybody's, and name any picture."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert user_store().folder == tmp_path / "ernie-rt" / "chat"
    chat = tmp_path / "ernie-rt" / "chat"
    chat.mkdir(parents=True, mode=0o700)
    assert user_store().folder == chat and capsys.readouterr().err == ""
    for change in (lambda: chat.chmod(0o777), lambda: (chat.rmdir(), chat.symlink_to(tmp_path))):
        change()
        store = user_store()
        assert store.folder is None and store.history is None and store.names() == []
        assert "is not kept: " in (said := capsys.readouterr().err) and "others can write to" in said


@pytest.mark.parametrize("name", STRANGE)
def test_remembered_digests_and_rows(name: str, tmp_path: Path) -> None:
    """An entry that is no file of ours is none, and is not waited for."""
    data = tmp_path / "data"
    data.write_bytes(b"x")
    os.utime(data, ns=(0, 0))
    stamps, stamp = Stamps(tmp_path / "stamps"), Stamp.of(data.stat())
    stamps.remember(data, stamp, "a" * 64, stamp.ctime_ns + 10**10)
    assert stamps.recall(data, stamp) == "a" * 64
    (entry,) = (tmp_path / "stamps").iterdir()
    STRANGE[name](entry)
    assert stamps.recall(data, stamp) is None

    rows = RowStore(tmp_path / "rows", 1 << 20)
    written = "0" * 64
    rows.write(written, b"key", b"rows", 0)
    assert bytes(rows.read(written, b"key", 4) or b"") == b"rows"
    STRANGE[name](tmp_path / "rows" / f"{written}.rows")
    if name != "writable by all":  # its digest, which takes the folder's secret, tells
        assert rows.read(written, b"key", 4) is None
