"""The sha256 of the files that weights lie in: hashed by several threads, or remembered."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from types import MappingProxyType
from typing import Final

from ernie_rt.files import Progress
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.stamps import Stamps

THREADS: Final = 8
"""That hash at most: together about as fast as a disk reads."""


class Digests:
    """The digests of mapped files, by name, in the order in which they will be asked for.

    A file is hashed once, whoever asks. While one is waited for, the threads go on with those behind it, but no farther
    than there are threads: what is hashed is read soon after, while the system still has its pages.
    """

    def __init__(
        self,
        files: Mapping[str, SafetensorsFile],
        stamps: Stamps | None,
        expected: Mapping[str, str] = MappingProxyType({}),
        progress: Progress | None = None,
    ) -> None:
        """`stamps` are believed and added to; of files that have an `expected` digest, when they say that one."""
        self._files = files
        self._stamps = stamps
        self._expected = expected
        self._progress = progress
        self._names = list(files)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._found: dict[str, Future[str]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._done, self._total = 0, sum(file.stamp.size for file in files.values())
        self._threads = max(1, min(_cores(), len(files), THREADS))
        self._pool = ThreadPoolExecutor(self._threads, "hashing")

    def of(self, name: str) -> str:
        """The digest of a file, waited for."""
        place = self._places[name]
        with self._lock:
            for each in self._names[place : place + 1 + self._threads]:
                if each not in self._found:
                    self._found[each] = self._begin(each)
        return self._found[name].result()

    def close(self) -> None:
        """End what is being hashed, within some ten milliseconds; the files are the owner's to close."""
        self._closed = True
        self._pool.shutdown()

    def _begin(self, name: str) -> Future[str]:
        file = self._files[name]
        known = None if self._stamps is None else self._stamps.recall(file.path, file.stamp)
        if known is None or self._expected.get(name, known) != known:
            return self._pool.submit(self._hash, file)
        self._count(file.stamp.size)
        remembered: Future[str] = Future()
        remembered.set_result(known)
        return remembered

    def _hash(self, file: SafetensorsFile) -> str:
        began = time.time_ns()
        digest = file.sha256(self._go_on)
        if self._stamps is not None:
            self._stamps.remember(file.path, file.stamp, digest, began)
        return digest

    def _go_on(self, count: int) -> None:
        if self._closed:
            raise CancelledError("closed while hashing")
        with self._lock:
            self._count(count)

    def _count(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def fingerprint(files: Mapping[str, SafetensorsFile], stamps: Stamps | None, progress: Progress | None = None) -> str:
    """A digest of every byte of some files, whatever their names are."""
    with closing(Digests(files, stamps, progress=progress)) as digests:
        return combined(map(digests.of, files))


def combined(digests: Iterable[str]) -> str:
    """The fingerprint of files with these digests."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def are_still(files: Mapping[str, SafetensorsFile], expected: str, stamps: Stamps | None) -> bool:
    """Whether files are those of a fingerprint that was taken since they were opened."""
    return all(file.is_untouched() for file in files.values()) or fingerprint(files, stamps) == expected


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
