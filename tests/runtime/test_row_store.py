"""Records on disk are believed when they are to the byte what was written, and never otherwise."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_rt import writing
from ernie_rt.errors import UnsafePathError, WriteError
from ernie_rt.runtime.row_store import RowStore

NAMES = [f"{number:064x}" for number in range(12)]
KEY, ROWS = b"tokens", b"rows and rows"
RECORD = 16 + 32 + len(KEY) + len(ROWS) + 32


@pytest.fixture
def store(tmp_path: Path) -> RowStore:
    return RowStore(tmp_path / "cache", 10 * RECORD)


def read(store: RowStore, name: str = NAMES[0], key: bytes = KEY, nbytes: int = len(ROWS)) -> bytes | None:
    found = store.read(name, key, nbytes)
    return None if found is None else bytes(found)


def path(store: RowStore, name: str = NAMES[0]) -> Path:
    return store.folder / f"{name}.rows"


def test_what_was_written_is_found_by_the_next_one(store: RowStore) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    assert read(RowStore(store.folder, 1 << 20)) == ROWS
    assert path(store).stat().st_size == RECORD
    assert not store.has(NAMES[1]) and read(store, NAMES[1]) is None


def test_a_record_with_any_byte_changed_is_removed(store: RowStore) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    whole = path(store).read_bytes()
    for place in range(len(whole)):
        path(store).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read(store) is None and not store.has(NAMES[0])


def test_a_record_of_another_length_is_removed(store: RowStore) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    whole = path(store).read_bytes()
    for damaged in (b"", whole[:-1], whole[:40], whole + b"\0", whole * 2):
        path(store).write_bytes(damaged)
        assert read(store) is None and not store.has(NAMES[0])


@pytest.mark.parametrize("key, nbytes", [(b"tokenz", len(ROWS)), (b"", len(ROWS)), (KEY, len(ROWS) + 1), (KEY, 0)])
def test_a_record_of_other_tokens_or_rows_is_none(store: RowStore, key: bytes, nbytes: int) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    assert read(store, key=key, nbytes=nbytes) is None


def test_a_record_under_another_name_is_none(store: RowStore) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    path(store).rename(path(store, NAMES[1]))
    assert read(store, NAMES[1]) is None


def test_a_record_of_another_folder_is_none(store: RowStore, tmp_path: Path) -> None:
    other = RowStore(tmp_path / "other", 1 << 20)
    other.write(NAMES[0], KEY, ROWS, 0)
    path(other).rename(path(store))
    assert read(store) is None


def test_names_tell_nothing_without_the_secret(store: RowStore, tmp_path: Path) -> None:
    other = RowStore(tmp_path / "other", 1 << 20)
    assert store.digest().hexdigest() != other.digest().hexdigest()
    assert store.digest().hexdigest() == RowStore(store.folder, 1).digest().hexdigest()


def test_what_is_no_file_is_no_record(store: RowStore, tmp_path: Path) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    path(store, NAMES[1]).symlink_to(tmp_path / "nowhere")
    assert read(store, NAMES[1]) is None and not store.has(NAMES[1])
    path(store, NAMES[2]).mkdir()
    assert read(store, NAMES[2]) is None
    os.mkfifo(path(store, NAMES[3]))
    assert read(store, NAMES[3]) is None


def test_what_was_used_longest_ago_gives_way(store: RowStore) -> None:
    for time, name in enumerate(NAMES[:10]):
        store.write(name, KEY, ROWS, time)
    store.use(NAMES[0], 11)
    store.write(NAMES[10], KEY, ROWS, 12)
    assert store.has(NAMES[0]) and not store.has(NAMES[1]) and store.has(NAMES[2])
    assert sum(each.stat().st_size for each in store.folder.glob("*.rows")) <= store.nbytes


def test_room_is_made_before_it_is_taken(store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing.write_atomic

    def watched(path: Path, **options: int) -> object:
        assert sum(each.stat().st_size for each in store.folder.glob("*.rows")) <= store.nbytes - RECORD
        return write(path, **options)

    monkeypatch.setattr(writing, "write_atomic", watched)
    for time, name in enumerate(NAMES):
        store.write(name, KEY, ROWS, time)
    assert not store.has(NAMES[1]) and store.has(NAMES[2])


def test_what_is_larger_than_all_is_not_written(store: RowStore) -> None:
    store.write(NAMES[0], KEY, bytes(20 * RECORD), 0)
    assert not store.has(NAMES[0])


def test_what_a_killed_process_left_goes(store: RowStore) -> None:
    leftover, fresh = (store.folder / f".{NAMES[0]}.rows.{digit * 16}.tmp" for digit in "ab")
    strange = store.folder / "notes.txt"
    for each in (leftover, fresh, strange):
        each.write_bytes(b"x")
    for each in (leftover, strange):
        os.utime(each, (1, 1))
    store.write(NAMES[1], KEY, ROWS, 0)
    assert not leftover.exists() and fresh.exists() and strange.exists()


def test_it_is_private(store: RowStore) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in store.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(UnsafePathError, match=rf"others can write to; found mode {mode:o}"):
        RowStore(tmp_path, 1 << 20)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UnsafePathError, match=f"found a folder of user {owner}"):
        RowStore(tmp_path, 1 << 20)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for given in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/nothing"), Path("nul\0")):
        with pytest.raises(WriteError, match="cannot be made"):
            RowStore(given, 1 << 20)


@pytest.mark.parametrize("damage", ["short", "read by others", "a link"])
def test_a_secret_that_is_none_is_made_anew(store: RowStore, tmp_path: Path, damage: str) -> None:
    store.write(NAMES[0], KEY, ROWS, 0)
    secret = store.folder / "secret"
    if damage == "short":
        secret.write_bytes(b"x")
    elif damage == "read by others":
        secret.chmod(0o644)
    else:
        (tmp_path / "given").write_bytes(bytes(32))
        secret.unlink()
        secret.symlink_to(tmp_path / "given")
    again = RowStore(store.folder, 1 << 20)
    assert again.digest().hexdigest() != store.digest().hexdigest() and read(again) is None
    assert not secret.is_symlink() and secret.stat().st_mode & 0o777 == 0o600


def test_a_disk_without_room(store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        store.write(NAMES[0], KEY, ROWS, 0)
    assert [each.name for each in store.folder.iterdir()] == ["secret"]


def test_a_folder_that_has_gone(store: RowStore) -> None:
    shutil.rmtree(store.folder)
    with pytest.raises(WriteError, match="cannot be written; found No such file or directory"):
        store.write(NAMES[0], KEY, ROWS, 0)


WRITER = """
import sys
from pathlib import Path
from ernie_rt.runtime.row_store import RowStore
store = RowStore(Path(sys.argv[1]), int(sys.argv[2]))
for turn in range(3):
    for number in range(12):
        name = f"{number:064x}"
        found = store.read(name, b"tokens", 13)
        assert found is None or bytes(found) == b"rows and rows"
        store.write(name, b"tokens", b"rows and rows", number)
print(store.digest().hexdigest())
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", WRITER, str(folder), str(10 * RECORD)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0] for process in both}
    assert all(process.returncode == 0 for process in both) and len(said) == 1, "they have two secrets"
    store = RowStore(folder, 10 * RECORD)
    records = list(folder.glob("*.rows"))
    assert 5 <= len(records) <= 10 and not list(folder.glob(".*"))
    assert all(read(store, each.stem) == ROWS for each in records)
