from __future__ import annotations

import os
import socket
import time
import tracemalloc
from pathlib import Path

import pytest

from ernie_rt import files
from ernie_rt.errors import CheckpointError, FileFormatError, UnsafePathError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    home.mkdir()
    (home / "config.json").write_text("{}")
    (tmp_path / "secret").write_text("{}")
    return home


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../secret", "/etc/passwd", "a/b", "a\\b", "C:\\x", "x\0y", "config.json\n", "x" * 300),
        "é.json",
    ],
)
def test_member_refuses_names_that_could_lead_out(folder: Path, name: str) -> None:
    with pytest.raises(UnsafePathError, match="could lead out"):
        files.member(folder, name)


def test_member_returns_the_path_or_the_named_error(folder: Path) -> None:
    assert files.member(folder, "config.json") == folder / "config.json"
    with pytest.raises(FileFormatError, match="no such file"):
        files.member(folder, "absent.json")
    with pytest.raises(CheckpointError, match="no such file"):
        files.member(folder, "absent.json", missing=CheckpointError)


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "zero", "outside", "loop", "unreadable target"])
def test_member_refuses_what_is_no_regular_file_inside(folder: Path, kind: str) -> None:
    path = folder / "weights"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.close()
        case "zero":
            path.symlink_to("/dev/zero")
        case "outside":
            path.symlink_to("../secret")
        case "loop":
            path.symlink_to(path)
        case "unreadable target":
            path.symlink_to(folder / "config.json" / "below")
    started = time.process_time()
    with pytest.raises(UnsafePathError):
        files.member(folder, "weights", own=True)
    if kind == "outside":  # what is only read may lie elsewhere
        assert files.read_json(files.member(folder, "weights")) == {}
    else:
        with pytest.raises(UnsafePathError):
            files.member(folder, "weights")
    assert time.process_time() - started < 0.5


def test_read_bytes_takes_what_is_there_and_allocates_no_more(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert files.read_bytes(path, 1 << 30) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 100_000
        os.truncate(path, 1 << 30)
        with pytest.raises(FileFormatError, match="too large; expected at most 1000000 bytes; found 1073741824"):
            files.read_bytes(path, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_read_bytes_of_a_file_that_says_it_is_empty() -> None:
    version = Path("/proc/version").read_bytes()
    assert version and files.read_bytes(Path("/proc/version"), len(version)) == version
    with pytest.raises(FileFormatError, match="too large"):
        files.read_bytes(Path("/proc/version"), len(version) - 1)


def test_readers_refuse_a_pipe_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (files.map_readonly, files.read_json):
        with pytest.raises(UnsafePathError, match="a named pipe"):
            read(tmp_path / "pipe")


def test_a_folders_own_files_include_the_blobs_of_the_hub_cache_alone(tmp_path: Path) -> None:
    repository = tmp_path / "models--baidu--ERNIE"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "b10b").write_text("{}")
    (repository / "refs").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/b10b")
    (snapshot / "other.json").symlink_to("../../refs")
    assert files.read_json(files.member(snapshot, "config.json", own=True)) == {}
    shortcut = tmp_path / "shortcut"
    shortcut.symlink_to(snapshot)
    assert files.read_json(files.member(shortcut, "config.json", own=True)) == {}
    with pytest.raises(UnsafePathError, match=r"leaves its folder.*`cp -rL FOLDER COPY`"):
        files.member(snapshot, "other.json", own=True)


@pytest.mark.parametrize("home", ["mine/snapshots/x", "models--mine/other/x"])
def test_a_folder_that_only_looks_like_the_hub_cache_has_no_blobs(home: str, tmp_path: Path) -> None:
    folder = tmp_path / home
    folder.mkdir(parents=True)
    (tmp_path / home.partition("/")[0] / "blobs").mkdir()
    (tmp_path / home.partition("/")[0] / "blobs" / "b10b").write_text("{}")
    (folder / "config.json").symlink_to("../../blobs/b10b")
    with pytest.raises(UnsafePathError, match="leaves its folder"):
        files.member(folder, "config.json", own=True)


def test_sizes_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileFormatError, match=f"at most {1 << 20} bytes; found {1 << 40}"):
        files.read_json(path)
    path.write_bytes(b"12345")
    assert files.read_bytes(path, 5) == b"12345"
    with pytest.raises(FileFormatError, match="too large"):
        files.read_bytes(path, 4)


def test_recognise() -> None:
    import pickle

    for protocol in range(2, 6):
        assert files.recognise(pickle.dumps({"a": 1}, protocol)) == "a pickle"
    assert files.recognise(b"PK\x03\x04....") == "a zip archive"
    assert files.recognise(b"\n<?xml version='1.0'?><Error>") == "an HTML page"
    assert files.recognise((0x280).to_bytes(8, "little") + b'{"a"') is None
    assert files.recognise(b"") is None
    assert {"a Git LFS pointer", "an HTML page", "a zip archive", "a pickle"} == set(files.FOREIGN)


def test_map_readonly(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="empty"):
        files.map_readonly(path)
    path.write_bytes(b"abc")
    data, status = files.map_readonly(path)
    assert status == path.stat()
    with data:
        assert data[:] == b"abc"
        with pytest.raises(TypeError):
            data[0] = 1
