"""Rows of prompts that are kept on disk: which are worth it, when they are written, and when they are read.

They are kept in chunks of 256 tokens. A chunk is found by a digest of the model, the namespace and all tokens up to
its end, and believed when these tokens are the ones that were asked for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ernie_rt.build import Build
from ernie_rt.contract.bases import ExecutableBase
from ernie_rt.contract.protocols import Executable, Limits
from ernie_rt.contract.step import Int32
from ernie_rt.display import human_bytes
from ernie_rt.errors import BackendError, OptionError, WriteError
from ernie_rt.files import Progress
from ernie_rt.graph.json import graph_to_json
from ernie_rt.runtime.prefix import Identity
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.runtime.sequence import SequenceState
from ernie_rt.weights.source import Fingerprinted, WeightSource

CHUNK: Final = 256
"""Tokens of a record: 5 to 20 MB, which a disk reads in one go, and of which a prompt wastes half at its end."""

READ_AHEAD: Final = 3
"""Chunks that are read, and their digests made, while one is taken in."""

WRITTEN_AT_ONCE: Final = 2
"""Chunks that wait for the disk; what comes after them waits in the cache."""

MOST_DUE: Final = 512
"""Chunks that wait in the cache. Where prompts come faster than a disk writes, further ones are not kept."""

APART_NS: Final = 1000
"""How much earlier than a token the one behind it counts as used."""

PAUSE_SECONDS: Final = 60.0
"""How long nothing is written after a write has failed, as on a full disk."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens of a text from `start` to `stop`; `key` are all up to `stop`, as they are compared.

    It counts as used a little before the chunk in front of it, without which it is worth nothing.
    """

    name: str
    start: int
    stop: int
    key: memoryview
    used_ns: int


@dataclass(frozen=True, slots=True)
class Load:
    """Rows that are to come from disk before the next step: those of a sequence's tokens from `start` to the end of the
    last chunk, into `rows`."""

    sequence: SequenceState
    start: int
    chunks: Sequence[Chunk]
    rows: Int32

    @property
    def stop(self) -> int:
        return self.chunks[-1].stop


class Finder(Protocol):
    """Who knows where rows are."""

    def where(self, namespace: bytes, identity: Identity) -> Int32 | None:
        """The rows of the cache that hold these tokens, one each; None unless all are there."""
        ...


def keep_rows(
    store: RowStore,
    executable: Executable,
    build: Build,
    limits: Limits,
    source: WeightSource,
    versions: Sequence[str],
    progress: Progress | None = None,
) -> KeptRows:
    """The rows of a model that was just compiled from `source`, on disk. `versions` are those of its backend,
    `progress` is told how far the weights are hashed.

    OptionError, and the executable is closed, where the backend hands out no rows, nothing tells the weights from
    others, or the store has no room for a chunk; BackendError where it hands out something else.
    """
    try:
        row_bytes = bytes_of_row(executable)
        if row_bytes is None or not isinstance(executable, ExecutableBase):
            raise OptionError(
                "the backend hands out no rows of its cache on this device, so that none can be kept on disk",
                found=f"{type(build.backend).__name__} on {build.target.device}",
                hint="Leave cache_dir out, or choose another backend, such as eager",
            )
        if not isinstance(source, Fingerprinted):
            raise OptionError(
                "rows on disk are found by what their weights were, and these have no fingerprint",
                found=type(source).__name__,
                hint="Leave cache_dir out, or give the source a method `fingerprint`",
            )
        if store.nbytes < 2 * CHUNK * row_bytes:
            raise OptionError(
                "cache_bytes has too little room",
                expected=f"at least {human_bytes(2 * CHUNK * row_bytes)}, for {2 * CHUNK} tokens of this model",
                found=human_bytes(store.nbytes),
            )
        told = {
            "weights": source.fingerprint(progress),
            "graphs": {name: graph_to_json(lowering.graph) for name, lowering in build.lowerings.items()},
            "backend": f"{type(build.backend).__module__}.{type(build.backend).__qualname__}",
            "versions": list(versions),
            "target": asdict(build.target),
            "max_batch_tokens": limits.max_batch_tokens,  # prompts are cut there, which may change the last bits
            "max_patches": limits.max_patches,  # and videos here
        }
        model = hashlib.blake2b(json.dumps(told, sort_keys=True).encode()).digest()
        return KeptRows(store, model, executable, row_bytes)
    except BaseException:
        executable.close()
        raise


def bytes_of_row(executable: Executable) -> int | None:
    """Of how many bytes the rows are that an executable hands out; None where it hands out none, BackendError where it
    hands out something else."""
    probe = executable.read_rows(np.zeros(0, np.int32)) if isinstance(executable, ExecutableBase) else None
    if probe is None:
        return None
    if probe.dtype != np.uint8 or probe.ndim != 2 or len(probe):
        raise BackendError(
            "read_rows does not give the bytes of each row",
            expected="uint8 [0, bytes of a row], of no row",
            found=f"{probe.dtype} {list(probe.shape)}",
        )
    nbytes: int = probe.shape[1]
    return nbytes


class KeptRows:
    """The rows of one executable on disk. But for the writing and reading of files the engine's thread does it all."""

    def __init__(
        self, store: RowStore, model: bytes, executable: ExecutableBase, row_bytes: int, chunk: int = CHUNK
    ) -> None:
        """`model` tells whatever rows follow from, beside namespace and tokens; a record holds `chunk` rows."""
        self._store = store
        self._model = model
        self._executable = executable
        self._row_bytes = row_bytes
        self._size = chunk
        self._due: deque[tuple[bytes, Identity, Chunk]] = deque()
        self._names: set[str] = set()  # of chunks that are due or being written
        self._writing: set[Future[None]] = set()
        self._writer = ThreadPoolExecutor(1, "keeping rows")
        self._readers = ThreadPoolExecutor(READ_AHEAD, "reading rows")
        self._resume = 0.0
        self.failure: str | None = None
        """Why rows were last not kept."""

    @property
    def busy(self) -> bool:
        """Whether rows wait to be kept."""
        return bool(self._due)

    def beyond(self, sequence: SequenceState, there: int) -> list[Chunk]:
        """Chunks on disk that go on where the first `there` tokens of a sequence end, or before that. Its last token
        has to enter in any case."""
        found: list[Chunk] = []
        if not sequence.request.reuses:
            return found
        for chunk in self._chunks(sequence.request.namespace, sequence.identity(len(sequence.tokens) - 1)):
            if chunk.stop <= there:
                continue
            if not self._store.has(chunk.name):
                break
            found.append(chunk)
        return found

    def load(self, load: Load) -> int:
        """Take rows in; gives how many of the sequence's tokens have rows then, fewer than wanted after damage."""
        reached = load.start
        for chunk, data in zip(load.chunks, self._read(load.chunks), strict=False):
            rows = load.rows[reached - load.start : chunk.stop - load.start]
            self._executable.write_rows(rows, data[reached - chunk.start :])
            reached = chunk.stop
        return reached

    def keep(self, namespace: bytes, identity: Identity) -> None:
        """The rows of these tokens are whole, and worth keeping. Those that follow from more than these are not found
        when their time comes."""
        if time.monotonic() < self._resume:
            return
        for chunk in self._chunks(namespace, identity):
            if self._store.has(chunk.name):
                self._store.use(chunk.name, chunk.used_ns)
            elif chunk.name not in self._names:
                if len(self._due) >= MOST_DUE:
                    return
                self._names.add(chunk.name)
                self._due.append((namespace, identity[: chunk.stop], chunk))

    def work(self, finder: Finder, *, patient: bool) -> None:
        """Hand one chunk to the writer; while that has enough to do only who is `patient` waits for it.

        No copy may be due, so that rows are where the finder says.
        """
        self._writing = {future for future in self._writing if not future.done()}
        if not self._due or (len(self._writing) >= WRITTEN_AT_ONCE and not patient):
            return
        if len(self._writing) >= WRITTEN_AT_ONCE:
            wait(self._writing, return_when=FIRST_COMPLETED)
        namespace, identity, chunk = self._due.popleft()
        try:
            rows = finder.where(namespace, identity)
            data = None if rows is None else self._executable.read_rows(rows[chunk.start :])
        except Exception as error:  # no request is worse off
            self.failure, data = f"{type(error).__name__}: {error}", None
        if data is None:  # the rows have gone since
            self._names.discard(chunk.name)
        else:
            self._writing.add(self._writer.submit(self._write, chunk, data))

    def close(self, finder: Finder) -> None:
        """Keep what is due, and end the threads."""
        try:
            while self._due:
                self.work(finder, patient=True)
        finally:
            self._due.clear()
            self._readers.shutdown()
            self._writer.shutdown()

    def _chunks(self, namespace: bytes, identity: Identity) -> Iterator[Chunk]:
        digest = self._store.digest()
        digest.update(self._model)
        digest.update(f"{len(namespace)} {identity.itemsize} ".encode() + namespace)
        now = time.time_ns()
        key, width = memoryview(identity.tobytes()), identity.itemsize
        for stop in range(self._size, len(identity) + 1, self._size):
            start = stop - self._size
            digest.update(key[start * width : stop * width])
            yield Chunk(digest.hexdigest(), start, stop, key[: stop * width], now - start * APART_NS)

    def _read(self, chunks: Iterable[Chunk]) -> Iterator[Bytes]:
        """The rows of chunks, up to the first that is not as it was written."""
        rest, reading = iter(chunks), deque[Future[Bytes | None]]()
        try:
            while True:
                for chunk in islice(rest, READ_AHEAD - len(reading)):
                    reading.append(self._readers.submit(self._read_one, chunk))
                data = reading.popleft().result() if reading else None
                if data is None:
                    return
                yield data
        finally:
            for future in reading:
                future.cancel()

    def _read_one(self, chunk: Chunk) -> Bytes | None:
        data = self._store.read(chunk.name, chunk.key, self._size * self._row_bytes)
        if data is None:
            return None
        self._store.use(chunk.name, chunk.used_ns)
        return np.frombuffer(data, np.uint8).reshape(self._size, self._row_bytes)

    def _write(self, chunk: Chunk, data: Bytes) -> None:
        try:
            if time.monotonic() >= self._resume:
                self._store.write(chunk.name, chunk.key, np.ascontiguousarray(data).data, chunk.used_ns)
        except WriteError as error:
            self.failure, self._resume = str(error), time.monotonic() + PAUSE_SECONDS
        finally:
            self._names.discard(chunk.name)
