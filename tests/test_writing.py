from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
from pathlib import Path

import pytest

from ernie_rt import writing
from ernie_rt.errors import UnsafePathError, WriteError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_write_atomic_replaces_the_file_and_honours_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    before = os.umask(umask)
    try:
        with writing.write_atomic(path) as file:
            file.write(b"new")
            assert path.read_bytes() == b"old"
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("call", ["open", "fdopen", "write", "fsync", "rename"])
def test_any_failing_call_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, overwrite: bool
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out"
    if overwrite:
        path.write_bytes(b"old")
    with pytest.raises(WriteError, match="No space left on device") as caught, monkeypatch.context() as patch:
        if call == "rename":
            patch.setattr(Path, "replace", fail)
            patch.setattr(os, "link", fail)
        elif call != "write":
            patch.setattr(os, call, fail)
        with writing.write_atomic(path, overwrite=overwrite) as file:
            file.write(b"new")
            if call == "write":
                fail()
    assert str(path) in str(caught.value)
    assert (path.read_bytes() == b"old") if overwrite else not path.exists()
    assert names(tmp_path) == (["out"] if overwrite else [])


def test_what_a_killed_writer_has_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    left = f".out.{'0' * 16}.tmp"
    kept = [f".out.{'0' * 15}.tmp", f".out2.{'0' * 16}.tmp", "0.tmp"]
    for name in (left, *kept):
        (tmp_path / name).write_text("half")
    (tmp_path / f".out.{'1' * 16}.tmp").mkdir()
    with writing.write_atomic(tmp_path / "out") as file:
        (mine,) = set(names(tmp_path)) - set(kept)
        with writing.write_atomic(tmp_path / "out") as other:
            other.write(b"second")
        assert set(names(tmp_path)) == {mine, "out", *kept}
        file.write(b"first, and last to end")
    assert set(names(tmp_path)) == {"out", *kept}
    assert (tmp_path / "out").read_bytes() == b"first, and last to end"


def test_without_locks_nothing_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / f".out.{'0' * 16}.tmp").write_text("")
    with writing.write_atomic(tmp_path / "out"):
        pass
    assert names(tmp_path) == [f".out.{'0' * 16}.tmp", "out"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """That is said of what is written all the same; and not where a file system never does it."""
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    said = pytest.raises(WriteError, match=r"out: it is written, but a loss of power may undo that.*Input/output error")
    with said if number == errno.EIO else contextlib.nullcontext(), writing.write_atomic(tmp_path / "out") as file:
        file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"new" and names(tmp_path) == ["out"]


def test_a_file_that_is_to_be_read_alone_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path / "out", os.W_OK))  # root always may
    with pytest.raises(WriteError, match="a file that you may not write to"), writing.write_atomic(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_in_the_block_passes_and_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(error), writing.write_atomic(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["out"]


def test_without_overwrite_an_existing_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.symlink_to("nowhere")
    with pytest.raises(WriteError, match="exists"), writing.write_atomic(path, overwrite=False):
        pass
    path.unlink()

    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for patched in (False, True):
        if patched:
            monkeypatch.setattr(os, "link", no_links)
        with pytest.raises(WriteError, match="exists"), writing.write_atomic(path, overwrite=False) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")  # somebody is faster
        assert path.read_bytes() == b"theirs" and names(tmp_path) == ["out"]
        path.unlink()
        with writing.write_atomic(path, overwrite=False) as file:
            file.write(b"mine")
        assert path.read_bytes() == b"mine" and names(tmp_path) == ["out"]
        path.unlink()


def test_write_errors_name_the_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, hint in ((tmp_path / "absent" / "out", "Make its folder first"), (tmp_path / "folder", "a folder")):
        with pytest.raises(WriteError, match=f"{path}.*{hint}"), writing.write_atomic(path) as file:
            file.write(b"x")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    """A device above all: for root, a rename over /dev/null would be possible."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(os.devnull)
    for name, found in (("pipe", "a named pipe"), ("link", "a device")):
        with (
            pytest.raises(WriteError, match=f"found {found}. Name a file"),
            writing.write_atomic(tmp_path / name, overwrite=overwrite) as file,
        ):
            file.write(b"x")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_a_folder_that_one_may_not_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))  # root always may
    with pytest.raises(WriteError, match=r"a folder that you may not write to\. Name a file elsewhere"):
        writing.check_targets(None, tmp_path / "out")


def test_a_path_that_no_system_has(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="a null character in the path"), writing.write_atomic(tmp_path / "a\0b"):
        pass


def test_locks(tmp_path: Path) -> None:
    """Several share one, and nobody else gets it alone; who holds it alone makes the others wait."""
    folder = tmp_path / "folder"
    folder.mkdir()
    busy = pytest.raises(WriteError, match="another process is writing it or using it")
    with writing.locked(folder, shared=True), writing.locked(folder, shared=True), busy, writing.locked(folder):
        pass
    got = threading.Event()

    def share() -> None:
        with writing.locked(folder, shared=True):
            got.set()

    waiting = threading.Thread(target=share)
    with writing.locked(folder):
        with pytest.raises(WriteError, match="another process"), writing.locked(folder):
            pass
        waiting.start()
        assert not got.wait(0.1)
    waiting.join(20)
    assert got.is_set()


def test_who_comes_second_takes_nothing_from_who_has_just_begun(tmp_path: Path) -> None:
    with writing.build_folder(tmp_path / "new") as folder:
        with pytest.raises(WriteError, match="another process is writing it"), writing.build_folder(tmp_path / "new"):
            pass
        (folder / "file").touch()
    assert (tmp_path / "new" / "file").exists()


def test_a_lock_on_what_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder may have its name by the time that it is locked."""
    folder = tmp_path / "folder"
    with pytest.raises(FileNotFoundError), writing.locked(folder):
        pass
    folder.mkdir()
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        folder.rename(tmp_path / "gone")
        folder.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FileNotFoundError), writing.locked(folder, shared=True):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS wants a file that is open for writing, which no folder can be."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with writing.locked(tmp_path), writing.build_folder(tmp_path / "new") as folder:
        (folder / "file").touch()
    assert (tmp_path / "new" / "file").exists()


@pytest.mark.parametrize("name", ["", ".", "/", "..", "x/.."])
def test_what_is_no_name_of_something_new(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (
        writing.write_atomic,
        writing.build_folder,
        lambda path: contextlib.nullcontext(writing.write_folder(path, {})),
    ):
        with pytest.raises(WriteError, match="names no file or folder that could be written"), write(Path(name)):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "a/../../b"])
def test_a_folder_is_written_within_itself(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError, match="a file name that leads out of its folder"):
        writing.write_folder(tmp_path / "new", {"a": b"", name: b""})
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [writing.temporary_folder, writing.temporary_file])
def test_where_nothing_can_be_written_for_the_time_being(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make():
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(WriteError, match=r"absent: nothing can be kept in .*; found No such file .* set TMPDIR"):
        make()


def test_what_a_killed_run_leaves_among_others_files_says_whose_it_is() -> None:
    with writing.temporary_folder() as folder:
        assert Path(folder).name.startswith("ernie-rt-")
