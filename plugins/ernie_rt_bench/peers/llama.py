"""llama.cpp by its own program, llama-bench, which loads a file anew for each measurement."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ernie_rt.cli.output import PeakMemory
from ernie_rt.errors import BackendError


class LlamaBench:
    """A GGUF file, its weights repacked for this CPU or not (None: as the program does it)."""

    def __init__(self, program: Path, file: Path, threads: int, repack: bool | None) -> None:
        self.name = f"llama.cpp {file.stem}{', no repacking' if repack is False else ''}"
        self.peak_bytes, self.cpu_seconds = 0, 0.0
        self._command = [str(program), "-m", str(file), "-t", str(threads), "-r", "1", "-o", "jsonl"]
        if repack is not None:
            self._command += ["--repack", str(int(repack))]
        self._rest = (0, 0)

    def start(self) -> Mapping[str, Any]:
        told = self._run("-p", "8", "-n", "0")
        return {"name": self.name, "backend": f"llama.cpp {told.get('build_commit', '')}".strip(), "device": "cpu"}

    def prefill(self, context: int, new: int, seed: int) -> float:
        self._rest = context, new
        return context / float(self._run("-p", str(context), "-n", "0")["avg_ts"])

    def decode(self) -> float:
        context, new = self._rest
        return new / float(self._run("-p", "0", "-n", str(new), "-d", str(context))["avg_ts"])

    def by_op(self, context: int) -> Sequence[Mapping[str, Any]]:
        return ()

    def close(self) -> None:
        pass

    def _run(self, *test: str) -> dict[str, Any]:
        before = os.times()
        with (
            subprocess.Popen(
                [*self._command, *test], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as child,
            PeakMemory(child.pid) as peak,
        ):
            try:
                told, said = child.communicate()
            finally:
                child.kill()
        after = os.times()
        self.peak_bytes = max(self.peak_bytes, peak.nbytes)
        self.cpu_seconds += after.children_user - before.children_user + after.children_system - before.children_system
        if child.returncode:
            lines = said.strip().splitlines()
            raise BackendError(
                f"llama-bench ended with exit code {child.returncode}",
                where=self._command[2],
                found=lines[-1] if lines else None,
                hint="It wants llama.cpp with ernie4_5 (of July 2025 or later), and a file of such a model",
            )
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        return found


@cache
def can_repack(program: Path) -> bool:
    """Whether the program has a switch for it."""
    said = subprocess.run([str(program), "--help"], capture_output=True, text=True)
    return "--repack" in said.stdout + said.stderr
