"""Where ernie-rt keeps things, and whether a file is the user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ernie_rt.errors import WriteError
from ernie_rt.home import is_private, user_cache, user_state


def test_the_usual_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert user_cache() == tmp_path / ".cache" / "ernie-rt"
    assert user_state() == tmp_path / ".local" / "state" / "ernie-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert (user_cache(), user_state()) == (tmp_path / "c" / "ernie-rt", tmp_path / "s" / "ernie-rt")


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
@pytest.mark.parametrize("path", ["cache", "./cache", "../cache"])
def test_a_path_that_depends_on_where_one_is(variable: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, path)
    with pytest.raises(WriteError, match=rf"{variable}: not an absolute path; found '.*cache.*Set XDG_CACHE_HOME to"):
        user_cache()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert user_cache() == tmp_path / "cache" / "ernie-rt"
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-that-name/cache")
    with pytest.raises(WriteError, match=r"no home folder; found ~nobody.*\. Set XDG_CACHE_HOME to"):
        user_cache()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(WriteError, match=r"no home folder\. Set XDG_CACHE_HOME to"):
        user_cache()
    with pytest.raises(WriteError, match=r"no home folder\. Set XDG_STATE_HOME to"):
        user_state()


@pytest.mark.parametrize(
    ("mode", "private"), [(0o600, True), (0o644, True), (0o700, True), (0o620, False), (0o602, False)], ids=oct
)
def test_private_is_what_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, private: bool
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    assert is_private((tmp_path / "file").stat()) == private
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not is_private((tmp_path / "file").stat())
