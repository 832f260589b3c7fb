"""Hashing files by several threads."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ernie_rt.weights import digests as module
from ernie_rt.weights import safetensors, stamps
from ernie_rt.weights.digests import Digests, fingerprint
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.stamps import Stamps

COUNT = 9
WAIT = 20
"""Seconds after which a thread that waits for another gives up."""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, SafetensorsFile]]:
    """Files of several pieces each, on a machine of two cores."""
    monkeypatch.setattr(module, "_cores", lambda: 2)
    monkeypatch.setattr(safetensors, "HASHED_AT_ONCE", 4096)
    (tmp_path / "files").mkdir()
    for n in range(COUNT):
        save_file({"a": np.full(5000, n, np.float32)}, tmp_path / "files" / f"{n}.safetensors")
    found = {str(n): SafetensorsFile(tmp_path / "files" / f"{n}.safetensors") for n in range(COUNT)}
    yield found
    for file in found.values():
        file.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose hashing began, in that order."""
    began: list[str] = []
    sha256 = SafetensorsFile.sha256

    def watched(self: SafetensorsFile, report: Callable[[int], None]) -> str:
        began.append(self.path.stem)
        return sha256(self, report)

    monkeypatch.setattr(SafetensorsFile, "sha256", watched)
    return began


def by_hand(file: SafetensorsFile) -> str:
    return hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_the_digests(opened: dict[str, SafetensorsFile], hashed: list[str]) -> None:
    """Each file is hashed once, in order, and none farther ahead than there are threads."""
    with closing(Digests(opened, None)) as digests:
        for n, (name, file) in enumerate(opened.items()):
            assert digests.of(name) == by_hand(file)
            assert len(hashed) <= n + 3
        assert [digests.of(name) for name in opened] == [by_hand(file) for file in opened.values()]
    assert sorted(hashed) == sorted(opened)
    assert all(int(name) <= place + 1 for place, name in enumerate(hashed))


def test_it_begins_where_it_is_asked(opened: dict[str, SafetensorsFile], hashed: list[str]) -> None:
    with closing(Digests(opened, None)) as digests:
        digests.of("6")
        digests.of("8")
        digests.of("0")
    assert hashed[0] in "67" and {"3", "4", "5"}.isdisjoint(hashed)


def test_several_at_once(opened: dict[str, SafetensorsFile], monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=WAIT)

    def together(self: SafetensorsFile, report: Callable[[int], None]) -> str:
        if self.path.stem in "01":
            both.wait()  # BrokenBarrierError unless the other one comes
        return self.path.stem

    monkeypatch.setattr(SafetensorsFile, "sha256", together)
    with closing(Digests(opened, None)) as digests:
        assert [digests.of(name) for name in opened] == list(opened)


def test_threads_that_ask_for_one_file_hash_it_once(opened: dict[str, SafetensorsFile], hashed: list[str]) -> None:
    with closing(Digests(opened, None)) as digests, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(digests.of, [*opened] * 8))
    assert found == [by_hand(file) for file in opened.values()] * 8
    assert sorted(hashed) == sorted(opened)


def test_closing_while_hashing(opened: dict[str, SafetensorsFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun ends at its next piece, whoever waits for it is told, and the files can be unmapped."""
    closed, sha256 = threading.Event(), SafetensorsFile.sha256

    def late(self: SafetensorsFile, report: Callable[[int], None]) -> str:
        closed.wait(WAIT)
        return sha256(self, report)

    monkeypatch.setattr(SafetensorsFile, "sha256", late)
    digests = Digests(opened, None)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(digests.of, name) for name in ("0", "1")]
        while len(digests._found) < 4:  # until both have asked
            time.sleep(0.001)
        ending = threading.Thread(target=digests.close)
        ending.start()
        while not digests._closed:
            time.sleep(0.001)
        closed.set()
        ending.join(WAIT)
        assert not ending.is_alive()
        for each in waiting:
            with pytest.raises(CancelledError):
                each.result(WAIT)
    for file in opened.values():
        file.close()
        assert file._map.closed


def test_progress_counts_every_byte(opened: dict[str, SafetensorsFile]) -> None:
    told: list[tuple[int, int]] = []
    fingerprint(opened, None, lambda done, total: told.append((done, total)))
    total = sum(file.path.stat().st_size for file in opened.values())
    assert told[-1] == (total, total) and [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stamps:
    """Stamps that believe files that have just been written."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    return Stamps(tmp_path / "stamps")


def test_what_is_remembered_is_not_hashed(opened: dict[str, SafetensorsFile], store: Stamps, hashed: list[str]) -> None:
    told: list[tuple[int, int]] = []
    first = fingerprint(opened, store)
    assert fingerprint(opened, store, lambda *each: told.append(each)) == first
    assert len(hashed) == COUNT and told[-1][0] == told[-1][1]


def test_a_file_that_is_replaced_while_it_is_open(
    opened: dict[str, SafetensorsFile], store: Stamps, hashed: list[str]
) -> None:
    """What is mapped is what counts: the file that was opened, hashed anew, and the new one is not taken for it."""
    before, first = by_hand(opened["4"]), fingerprint(opened, store)
    time.sleep(0.02)
    save_file({"a": np.full(5000, 77, np.float32)}, opened["4"].path.with_name("new"))
    opened["4"].path.with_name("new").replace(opened["4"].path)
    assert not opened["4"].is_untouched() and opened["5"].is_untouched()
    hashed.clear()
    with closing(Digests(opened, store)) as digests:
        assert digests.of("4") == before != by_hand(opened["4"])
    assert fingerprint(opened, store) == first and set(hashed) == {"4"}
    with closing(SafetensorsFile(opened["4"].path)) as new:
        assert fingerprint({"new": new}, store) == fingerprint({"new": new}, None)


def test_a_wrong_memory_accuses_nobody(opened: dict[str, SafetensorsFile], store: Stamps, hashed: list[str]) -> None:
    expected = {name: by_hand(file) for name, file in opened.items()}
    for file in opened.values():
        store.remember(file.path, file.stamp, "0" * 64, time.time_ns())
    with closing(Digests(opened, store, expected)) as digests:
        assert {name: digests.of(name) for name in opened} == expected
    assert len(hashed) == COUNT
    with closing(Digests(opened, store, expected)) as digests:
        assert {name: digests.of(name) for name in opened} == expected
    assert len(hashed) == COUNT


def test_two_processes_hash_and_remember_at_once(opened: dict[str, SafetensorsFile], store: Stamps) -> None:
    expected = fingerprint(opened, None)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if all(fingerprint(opened, store) == expected for _ in range(5)) else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len([*store.folder.iterdir()]) == COUNT
    assert fingerprint(opened, store) == expected


def test_a_fingerprint_is_of_every_byte_and_of_no_name(tmp_path: Path, opened: dict[str, SafetensorsFile]) -> None:
    first = fingerprint(opened, None)
    assert fingerprint(dict(reversed(opened.items())), None) == first
    assert fingerprint({f"renamed {name}": file for name, file in opened.items()}, None) == first
    assert fingerprint({name: opened[name] for name in list(opened)[1:]}, None) != first
