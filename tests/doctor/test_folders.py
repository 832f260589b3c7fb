"""Folders: faults planted for real, each gone once its printed fix has run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ernie_rt.contract import Finding
from ernie_rt.doctor import folders
from ernie_rt.doctor.report import Fact

NOBODY = 65534


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is kept: folders that are there, and their user's own."""
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
        (tmp_path / name / "ernie-rt").mkdir(parents=True, mode=0o700)
    (tmp_path / "cache" / "huggingface" / "hub").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def somebody(home: Path) -> Iterator[Path]:
    """The same, of a user whose folders can be closed to them: not root's."""
    if os.geteuid():
        yield home
        return
    for folder, names, _ in os.walk(home):
        for name in (".", *names):
            os.chown(Path(folder, name), NOBODY, NOBODY)
    for folder in (home, *home.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)  # pytest's own folders are root's alone
    os.seteuid(NOBODY)
    try:
        yield home
    finally:
        os.seteuid(0)


def found() -> list[Finding]:
    return [each for each in folders.folders() if isinstance(each, Finding)]


def run(command: str) -> None:
    user = {"user": NOBODY} if os.geteuid() == NOBODY and os.getuid() == 0 else {}
    euid = os.geteuid()
    if user:
        os.seteuid(0)  # to become somebody else in earnest
    try:
        subprocess.run(["sh", "-c", command], check=True, **user)  # type: ignore[call-overload]
    finally:
        os.seteuid(euid)


def test_folders_without_faults(home: Path) -> None:
    assert not found()
    facts = {each.name: each.text for each in folders.folders() if isinstance(each, Fact)}
    assert facts.keys() == {"downloaded models", "quantised models", "chats"}
    assert facts["quantised models"].startswith(f"{home / 'cache' / 'ernie-rt'}, with ")


def test_folders_that_are_not_there_yet(home: Path) -> None:
    shutil.rmtree(home / "cache")
    assert not found() and not (home / "cache").exists()


@pytest.mark.parametrize("deep", [False, True])
def test_a_cache_that_everybody_may_write(deep: bool, home: Path) -> None:
    open_folder = home / "cache" / "ernie-rt" / ("quantized" if deep else "")
    open_folder.mkdir(exist_ok=True)
    open_folder.chmod(0o777)
    (finding,) = found()
    assert finding.severity == "broken" and finding.seen == f"everybody may write {open_folder} (mode 777)"
    run(finding.command)
    assert not found() and open_folder.stat().st_mode & 0o777 == 0o755


def test_downloads_that_everybody_may_write(home: Path) -> None:
    (home / "cache" / "huggingface" / "hub").chmod(0o777)
    (finding,) = found()
    assert finding.severity == "remark"
    run(finding.command)
    assert not found()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user(home: Path) -> None:
    os.chown(home / "state" / "ernie-rt", NOBODY, NOBODY)
    (finding,) = found()
    assert finding.severity == "broken" and finding.seen.endswith(f"belongs to another user ({NOBODY})")
    run(finding.command)
    assert not found()


def test_a_folder_that_cannot_be_written(somebody: Path) -> None:
    closed = somebody / "cache" / "ernie-rt"
    closed.chmod(0o500)
    (finding,) = found()
    assert finding.severity == "broken" and "quantised models are kept, cannot be written" in finding.seen
    assert finding.command == f"chmod u+rwx {closed}"
    run(finding.command)
    assert not found()


def test_a_folder_that_cannot_be_reached(somebody: Path) -> None:
    """It is a fault of that folder, and the others are looked at all the same."""
    closed = somebody / "cache"
    closed.chmod(0)
    assert [(each.severity, each.seen.partition(", where")[0]) for each in found()] == [("broken", str(closed))] * 2
    assert [each.text.partition(",")[0] for each in folders.folders() if isinstance(each, Fact)][2].endswith("ernie-rt")
    for finding in found()[:1]:
        run(finding.command)
    assert not found()


def test_a_folder_that_cannot_be_listed_and_files_that_cannot_be_read(somebody: Path) -> None:
    hub, secret = (somebody / "cache" / name for name in ("huggingface/hub", "huggingface/hub/weights"))
    secret.write_bytes(bytes(folders.LEAST_FILE))
    secret.chmod(0)
    assert [type(each) for each in folders.disk()] == [Fact]
    hub.chmod(0o300)
    assert not found()


def test_a_user_without_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where no user has this number
    assert [each.seen for each in found()] == ["this user has no home folder"] * 3
    assert all("to the absolute path of a folder" in each.advice for each in found()) and not list(folders.disk())


def test_a_disk_that_is_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, though three folders are on it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(1 << 30) - 1))
    (finding,) = found()
    assert finding.severity == "broken" and "1024.0 MiB are free" in finding.seen and "ernie-rt cache" in finding.advice
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    assert not found()


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "XDG_STATE_HOME"])
def test_a_path_that_means_another_folder_everywhere(
    variable: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "some/where")
    monkeypatch.setenv("HF_HOME", str(home / "cache" / "huggingface"))
    (finding,) = found()
    assert finding.severity == "broken" and "not an absolute path" in finding.seen
    assert finding.command == f"unset {variable}"


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"])
def test_where_downloads_are(variable: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rules of the library that makes them."""
    monkeypatch.setenv(variable, str(home / "elsewhere"))
    program = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert folders._of_hub().path == Path(told.stdout.strip())


@pytest.mark.parametrize("direct", [False, True])
def test_a_disk_is_measured(direct: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "READING", 0.02)
    if not direct:
        monkeypatch.delattr(os, "O_DIRECT")
    hub = home / "cache" / "huggingface" / "hub"
    for _ in range(2):  # with a file that is written for it, and with one that is there
        (fact,) = folders.disk()
        assert isinstance(fact, Fact) and fact.text.endswith(
            "(past the page cache)" if direct else "(perhaps from memory, as this file system cannot be read past it)"
        )
        assert not list(hub.glob("tmp*"))
        (hub / "weights").write_bytes(bytes(folders.LEAST_FILE))
    monkeypatch.setattr(folders, "SLOW_DISK", 1e15)
    assert [each.severity for each in folders.disk() if isinstance(each, Finding)] == ["slow"]
