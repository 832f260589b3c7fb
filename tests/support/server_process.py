"""`ernie-rt serve` in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from support.commands import START


@dataclass
class Process:
    """A server, where it is, and what it has said on standard error."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def alone(self) -> bool:
        """Whether neither it nor a child of it is left; waits a little for those that are on their way out."""
        for _ in range(100):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 0)
                time.sleep(0.02)
                continue
            return True
        return False


@contextmanager
def server_process(*arguments: str) -> Iterator[Process]:
    """Serve the demo model at a free port from when it is ready until the end of the block."""
    command = [*START, "serve", "demo", "--port", "0", *arguments]
    server = Process(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True))
    assert server.process.stderr is not None
    try:
        for line in server.process.stderr:
            server.said.append(line)
            if line.startswith("curl"):
                break
        found = re.search(r"http://[\d.:]+", server.said[-1])
        assert found is not None, server.said
        server.url = found[0]
        yield server
    finally:
        server.process.kill()
        server.said += server.process.stderr.readlines()
        server.process.stderr.close()
        server.process.wait()
