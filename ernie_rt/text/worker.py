"""A child process that answers requests through its pipes, by a clock; jinja_worker.py says how they talk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.files import MIB

START_SECONDS: Final = 20.0


class Worker:
    """A Python process that runs a script. It has no environment variables, no open files and no packages of its own,
    and ends when this process does."""

    def __init__(self, script: Path, arguments: Sequence[str]) -> None:
        """Start it, and wait until it says that it is ready; ErnieRtError when it never does."""
        self._expired = False
        if not sys.executable:
            raise _no_start("none")
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(script), *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=script.anchor,
                env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},  # Windows needs it
            )
        except OSError as error:
            raise _no_start(error.strerror or type(error).__name__) from None
        with self._clock(START_SECONDS):
            ready = self._receive(0)
        if ready is None:
            raise _no_start(self._last_words())
        assert self._child.stderr is not None
        self._child.stderr.close()

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
        clock.start()
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
        lines = said.decode(errors="replace").split("\n")
        return next((line[-200:] for line in reversed(lines) if line.strip()), f"exit code {code}")

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


def _no_start(why: str) -> ErnieRtError:
    return ErnieRtError(
        "no process could be started to render the chat template in",
        where=f"sys.executable, {sys.executable!r}",
        expected="a Python interpreter",
        found=why,
        hint="Set sys.executable to one, or encode the prompt yourself",
    )
