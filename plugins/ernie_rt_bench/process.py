"""A contender that is a Python process: started, told what to do, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ernie_rt import errors
from ernie_rt.cli.output import PeakMemory
from ernie_rt.errors import BackendError, ErnieRtError
from ernie_rt_bench.others import process_seconds
from ernie_rt_bench.workload import Workload


class Process:
    """Runs a `runner` of child.py, which is given `arguments`. `prefix` goes before its command."""

    def __init__(
        self, name: str, runner: str, arguments: Mapping[str, Any], workload: Workload, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._request = {"runner": runner, "arguments": arguments, "contexts": workload.contexts}
        self._prefix = prefix
        self._child: subprocess.Popen[str] | None = None
        self.peak_bytes = 0

    def start(self) -> Mapping[str, Any]:
        request = json.dumps({**self._request, "began": time.time()})
        self._child = subprocess.Popen(
            [*self._prefix, sys.executable, "-P", "-m", "ernie_rt_bench.child", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # an interrupt is for this process, which then ends the others
        )
        facts: Mapping[str, Any] = self._answer()
        self.name = facts["name"]
        return facts

    def prefill(self, context: int, new: int, seed: int) -> float:
        return float(self._ask(do="prefill", context=context, new=new, seed=seed))

    def decode(self) -> float:
        return float(self._ask(do="decode"))

    def look(self, size: tuple[int, int], context: int, seed: int) -> tuple[float, float]:
        tower, reading = self._ask(do="look", size=size, context=context, seed=seed)
        return float(tower), float(reading)

    def by_op(self, context: int) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self._ask(do="by op", context=context)
        return found

    @property
    def cpu_seconds(self) -> float:
        return 0.0 if self._child is None else process_seconds(self._child.pid)

    def close(self) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.communicate()

    def _ask(self, **request: Any) -> Any:
        assert self._child is not None and self._child.stdin is not None
        with suppress(BrokenPipeError):  # `_answer` says how it ended
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child is not None and self._child.stdout is not None
        with PeakMemory(self._child.pid) as peak:  # while it works: to look costs who is measured some time
            line = self._child.stdout.readline()
        self.peak_bytes = max(self.peak_bytes, peak.nbytes)
        if not line:
            code = self._child.wait()
            end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            hint = "The system ends a process so when memory is short" if code == -signal.SIGKILL else None
            raise BackendError(f"the process that ran {self.name} ended with {end}", hint=hint)
        told = json.loads(line)
        if isinstance(told, dict) and "error" in told:
            raise _error(**told["error"])
        return told


def _error(type: str, what: str, **parts: Any) -> ErnieRtError:
    """What a child raised, as the same class."""
    made: ErnieRtError = getattr(errors, type)(what, **parts)
    return made
