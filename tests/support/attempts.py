"""A call in a child process that is watched: what it raised, in how long, with how much memory, and what it opened."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import site
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 1.0
TRIES: Final = 3
"""What takes longer is tried again, and its quickest counts: a core may be shared with other programs."""
BYTES: Final = 100 << 20
"""What a hostile file may cost in memory beyond its own size."""
PATIENCE: Final = 20
"""Seconds until a call that hangs is killed."""
ROOM: Final = 1 << 30
"""Of memory of its own, mapped files aside: what a claim makes somebody allocate beyond it fails."""
ACTS: Final = frozenset(
    {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "ctypes.dlopen",
     "socket.connect", "socket.getaddrinfo"}
)  # fmt: skip
"""What no file of a model leads to, as Python's audit events call it."""
ROOTS: Final = (sys.prefix, sys.base_prefix, *site.getsitepackages(), Path(__file__).parents[2])
OURS: Final = (*map(os.path.realpath, ROOTS), "/proc", "/sys", "/usr/lib/os-release", os.devnull)
"""Where Python, its packages and the system's own figures lie."""


Call = Callable[[Path], object]
_heard: list[Callable[[str, tuple[Any, ...]], None]] = []
"""In a child, where each call's events go: a hook stays for ever."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a call: the error it raised, by its classes from the innermost to the outermost; CPU seconds; the
    most memory beyond what it began with; paths that it opened, resolved then, and acts of `ACTS`."""

    kinds: tuple[str, ...]
    message: str
    seconds: float
    grown: int
    opened: tuple[str, ...]
    acts: tuple[str, ...]

    def strays(self, *allowed: Path) -> list[str]:
        """What was opened that lies neither in these folders nor where Python does."""
        homes = (*OURS, *(os.path.realpath(path) for path in (*allowed, os.environ["XDG_CACHE_HOME"])))
        return [path for path in self.opened if not any(path == home or path.startswith(home + "/") for home in homes)]


def attempt(call: Call, path: Path, patience: int = PATIENCE) -> Fate:
    """Call with a path in a fork of this process. A call that crashes it, or hangs, fails the test."""
    return attempt_each(call, path, [lambda path: None], patience)[0]


def attempt_each(call: Call, path: Path, changes: Sequence[Call], patience: int = PATIENCE) -> list[Fate]:
    """The same after each of some changes of what lies there, one after the other, in one fork."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which the child needs
        child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            gc.freeze()  # what the tests hold is not looked through, nor copied, while the call's own garbage is
            with os.fdopen(writing, "wb") as pipe:
                for change in changes:
                    change(path)
                    told = _watched(call, path, patience)
                    for _ in range(TRIES - 1):
                        if told["kinds"] and told["seconds"] >= SECONDS:
                            told["seconds"] = min(told["seconds"], _watched(call, path, patience)["seconds"])
                    pipe.write(json.dumps(told).encode() + b"\n")
                    pipe.flush()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"after {len(lines)} of {len(changes)}: status {status}"
    return [
        Fate(**{key: tuple(it) if isinstance(it, list) else it for key, it in json.loads(x).items()}) for x in lines
    ]


def refused(call: Call, path: Path, kind: str, *words: str, size: int = 0, home: Path | None = None) -> None:
    """Assert that a call with a path is refused by an error of this kind with these words: at once, with no more memory
    than the `size` of what it was given allows, and with no file opened outside of `home` (None: the path)."""
    _check_refused(attempt(call, path), kind, words, size, home or path)


def refused_each(
    call: Call, path: Path, cases: Iterable[tuple[Call, str, str]], *words: str, size: int = 0, home: Path | None = None
) -> None:
    """The same after each of some changes, with the kind of error and some words of it; `words` are those of all."""
    cases = list(cases)
    fates = attempt_each(call, path, [change for change, *_ in cases])
    for fate, (_, kind, own) in zip(fates, cases, strict=True):
        _check_refused(fate, kind, (*words, own), size, home or path)


def accepted(call: Call, path: Path, home: Path | None = None) -> Fate:
    """Assert that a call does its work, and opens no file outside of `home` (None: the path)."""
    return accepted_each(call, path, [lambda path: None], home)[0]


def accepted_each(call: Call, path: Path, changes: Sequence[Call], home: Path | None = None) -> list[Fate]:
    """The same after each of some changes."""
    fates = attempt_each(call, path, changes)
    for fate in fates:
        assert not fate.kinds, fate
        assert not fate.strays(home or path) and not fate.acts, (fate.strays(home or path), fate.acts)
    return fates


def _check_refused(fate: Fate, kind: str, words: Sequence[str], size: int, home: Path) -> None:
    assert "ErnieRtError" in fate.kinds, fate
    assert kind in fate.kinds, fate
    for word in words:
        assert word in fate.message, fate.message
    assert fate.message.isprintable() and len(fate.message) < 2000, fate.message
    assert fate.seconds < SECONDS, fate.seconds
    assert fate.grown < size + BYTES, fate.grown
    assert not fate.strays(home) and not fate.acts, (fate.strays(home), fate.acts)


def _watched(call: Call, path: Path, patience: int) -> dict[str, Any]:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(patience)
    if not _heard:
        resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + ROOM, resource.RLIM_INFINITY))
    opened: dict[str, None] = {}
    acts: dict[str, None] = {}

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            opened[os.path.realpath(os.fsdecode(arguments[0]))] = None
        elif event in ACTS:
            acts[f"{event} {arguments}"] = None

    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark is that of now
    before = _memory("VmHWM")
    _heard.append(hear)
    if len(_heard) == 1:
        sys.addaudithook(lambda *event: _heard[-1](*event))
    began = time.process_time()
    kinds: list[str] = []
    message = ""
    try:
        call(path)
    except BaseException as error:
        kinds = [each.__name__ for each in type(error).__mro__]
        message = str(error)
    return {
        "kinds": kinds,
        "message": message,
        "seconds": time.process_time() - began,
        "grown": _memory("VmHWM") - before,
        "opened": list(opened),
        "acts": list(acts),
    }


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
