"""A child process that answers requests through its pipes, by a clock; text/jinja_worker.py says how they talk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.files import MIB

START_SECONDS: Final = 20.0
STARTING: Final = ("SYSTEMROOT", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH")
"""The variables without which an interpreter may not start: where the system, its library and its modules lie."""
PYTHON: Final = re.compile(r".*(ython|pypy)[\d.]*_?[a-z]?(-wrapped)?(\.exe)?", re.IGNORECASE)
"""Names of programs that are Python; others, in which Python is embedded, would start anew."""


def interpreters() -> list[str]:
    """Where Python may be, the likeliest first: this process's own, and what lies beside the library that it uses."""
    own = [path for path in (sys.executable, getattr(sys, "_base_executable", None)) if path]
    library = Path(os.__file__).parent  # PREFIX/lib/python3.11, or PREFIX/Lib
    prefixes = (Path(sys.base_exec_prefix), library.parent.parent, library.parent)
    folders = [Path(folder) for folder in (sysconfig.get_config_var("BINDIR"),) if folder]
    folders += [folder for prefix in prefixes for folder in (prefix / "bin", prefix)]
    names = (f"python{sys.version_info.major}.{sys.version_info.minor}", "python3", "python", "python.exe")
    beside = [folder / name for folder in folders for name in names]
    found = [path for path in own if PYTHON.fullmatch(Path(path).name)]
    found += [str(path) for path in beside if path.is_file() and os.access(path, os.X_OK)]
    return list(dict.fromkeys(found))


def folders_of(*packages: str) -> list[str]:
    """Where packages lie that this process can import: a worker looks nowhere by itself."""
    folders: dict[str, None] = {}
    for name in packages:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ErnieRtError(f"{name} is not installed", hint=f"pip install {name}")
        folders |= dict.fromkeys(str(Path(folder).absolute().parent) for folder in spec.submodule_search_locations)
    return list(folders)


class Worker:
    """A Python process that runs a script. It has no packages of its own, no open files and no environment variables
    but `STARTING`, and ends when this process does."""

    def __init__(
        self,
        script: Sequence[str],
        arguments: Sequence[str],
        job: str = "render the chat template",
        instead: str = "encode the prompt yourself",
    ) -> None:
        """Start it, and wait until it says that it is ready; ErnieRtError with the causes when it never does.

        `script` is a path, or `-c` and a program; `job` and `instead` are what it is for, and what does without it.
        """
        self._job, self._instead = job, instead
        command = ["-s", "-P", "-S", "-B", *script, *arguments]
        causes = []
        for python in interpreters():
            cause = self._start([python, *command])
            if cause is None:
                return
            causes.append(f"{python}: {cause}")
        raise ErnieRtError(
            f"no process could be started to {job} in",
            where=f"sys.executable, {sys.executable!r}",
            expected="a Python interpreter",
            found="; ".join(causes) or "none, nor any beside Python's library",
            hint=f"Set sys.executable to the path of one, or {instead}",
        )

    def _start(self, command: Sequence[str]) -> str | None:
        """None once it is ready; else why it is not."""
        self._expired = False
        try:
            self._child = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=Path(command[0]).anchor or None,
                env={name: os.environ[name] for name in STARTING if name in os.environ},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            return error.strerror or type(error).__name__
        try:
            with self._clock(START_SECONDS):
                ready = self._receive(0)
        except BaseException:
            self.end()
            raise
        if ready is None:
            return self._last_words()
        assert self._child.stderr is not None
        self._child.stderr.close()
        return None

    def ask(self, request: bytes, seconds: float, most: int) -> tuple[bool, bytes | None]:
        """Whether it has read a request, and its answer: None when it has ended, or has more than `most` bytes to say.

        It is killed after so many seconds.
        """
        with self._clock(seconds):
            taken = self._send(request) and self._receive(0) is not None
            return taken, self._receive(most) if taken else None

    def end(self) -> tuple[bool, int]:
        """Kill it if need be: whether its time was up, and its exit code."""
        self._close()
        self._child.kill()
        return self._expired, self._child.wait()

    def disown(self) -> None:
        """In a fork: leave it to the process that started it."""
        self._close()
        self._child.returncode = 0  # nothing to wait for

    @contextmanager
    def _clock(self, seconds: float) -> Iterator[None]:
        """Kill the process when the block takes longer."""
        clock = threading.Timer(seconds, self._expire)
        try:
            clock.start()
        except RuntimeError as error:
            raise ErnieRtError(
                f"no thread could be started that stops what takes too long to {self._job}",
                found=str(error),
                hint=f"Raise the number of processes that the system allows, or {self._instead}",
            ) from None
        try:
            yield
        finally:
            clock.cancel()
            clock.join()

    def _expire(self) -> None:
        self._expired = True
        self._child.kill()

    def _close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe is not None
            pipe.close()

    def _last_words(self) -> str:
        """Why it has ended before it was ready, in one line."""
        try:
            _, said = self._child.communicate(timeout=1)
        except subprocess.TimeoutExpired:  # it lives on, or a child of its own has the pipe
            said = b""
        expired, code = self.end()
        if expired:
            return f"nothing for {START_SECONDS:g} s"
        lines = [line for line in map(str.strip, said.decode(errors="replace").split("\n")) if line]
        cause = next((line for line in lines if line.startswith("Fatal Python error")), lines[-1] if lines else "")
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{ended}: {cause[-200:]}" if cause else ended

    def _send(self, data: bytes) -> bool:
        assert self._child.stdin is not None
        left = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while left:
                left = left[self._child.stdin.write(left) :]
        except OSError:
            return False
        return True

    def _receive(self, most: int) -> bytes | None:
        header = self._read(4)
        size = most + 1 if header is None else int.from_bytes(header, "big")
        return self._read(size) if size <= most else None

    def _read(self, size: int) -> bytes | None:
        assert self._child.stdout is not None
        data = bytearray()
        while len(data) < size:
            part = self._child.stdout.read(min(size - len(data), MIB))
            if not part:
                return None
            data += part
        return bytes(data)
