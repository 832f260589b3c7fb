"""A terminal of its own for a command, and somebody who types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from types import TracebackType

from support.commands import start


class Terminal:
    """`ernie-rt ARGUMENTS` on a terminal; `options` of the process may lead some of its streams elsewhere."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.ours, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process: subprocess.Popen[bytes] = start(
            *arguments, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **streams | options,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def type(self, text: str) -> None:
        """Type, or paste, in pieces that a terminal takes."""
        data = text.encode()
        for place in range(0, len(data), 1000):
            os.write(self.ours, data[place : place + 1000])
            time.sleep(0.02)

    def wait(self, text: str, seconds: float = 30) -> None:
        """Read until `text` was shown."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(self.shown)
            self.shown += os.read(self.ours, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def wait_for_keys(self, seconds: float = 30) -> None:
        """Wait until the command takes keys as they come, so that nobody drops any."""
        deadline = time.monotonic() + seconds
        while termios.tcgetattr(self.ours)[3] & termios.ICANON:
            if time.monotonic() > deadline:
                raise TimeoutError(self.shown)
            time.sleep(0.005)

    def rest(self) -> str:
        """All that is shown until the command ends."""
        while True:
            try:
                self.shown += os.read(self.ours, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                return self.shown
