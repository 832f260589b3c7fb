"""Runs targets in batches, each in a forked child, and says which checks were reached and what went wrong."""

from __future__ import annotations

import collections
import gc
import json
import mmap
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fuzz.child import RESULT, SAID, STARTING, run_batch
from fuzz.sites import Site, checks
from fuzz.target import Target

BATCH: Final = 2000
"""Inputs of a batch, at most."""
DEATHS: Final = 20
"""Inputs of a target that may end their process before the target is given up."""
OFTEN: Final = 100
"""How often the long mode is to reach each check."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What an input did that none may do; its seed repeats it."""

    seed: int
    kind: str
    what: str


@dataclass
class Outcome:
    """What became of a target's inputs."""

    target: Target
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    """Of the processor, that the inputs took together."""
    longest: float = 0.0
    """Seconds of the processor that the slowest input took."""
    sites: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[Fault] = field(default_factory=list)
    abandoned: bool = False
    """Whether it was given up, since too many inputs ended their process, or it did not start."""

    @property
    def checks(self) -> dict[Site, str]:
        """The checks of its modules that it should reach."""
        every = {site: text for module in self.target.modules for site, text in checks(module).items()}
        return {s: text for s, text in every.items() if not any(words in text for words in self.target.excused)}

    def rarely(self, reached: Mapping[str, int], often: int) -> dict[str, str]:
        """Its checks that were reached less often than that, whichever target it was, and their source."""
        return {str(site): text for site, text in self.checks.items() if reached.get(str(site), 0) < often}

    def to_json(self, reached: Mapping[str, int]) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "inputs": self.inputs,
            "accepted": self.accepted,
            "refused": self.sites.total(),
            "cpu_seconds": round(self.seconds, 1),
            "longest_cpu_seconds": round(self.longest, 3),
            "checks": len(self.checks),
            "reached": dict(sorted(self.sites.items())),
            "rarely": {name: [reached.get(name, 0), text] for name, text in self.rarely(reached, OFTEN).items()},
            "excused": dict(self.target.excused),
            "abandoned": self.abandoned,
            "faults": [{"seed": fault.seed, "kind": fault.kind, "what": fault.what} for fault in self.faults],
        }


def reached(outcomes: Iterable[Outcome]) -> collections.Counter[str]:
    """How often each check was reached, whichever target it was."""
    return sum((outcome.sites for outcome in outcomes), collections.Counter())


@dataclass
class _Batch:
    outcome: Outcome
    first: int
    count: int
    alone: Fault | None = None
    """What is to be seen once more: the batch has the input of this fault alone."""


@dataclass
class _Child:
    batch: _Batch
    folder: Path
    place: mmap.mmap


class Run:
    """Inputs of several targets, which take turns by their shares; up to `jobs` batches at a time."""

    def __init__(self, targets: Sequence[Target], *, jobs: int = 1, first: int = 0, batch: int = BATCH) -> None:
        self.outcomes = [Outcome(target) for target in targets]
        self._jobs, self._first, self._batch = jobs, first, batch
        self._next = {target.name: first for target in targets}
        self._again: list[_Batch] = []
        self._running: dict[int, _Child] = {}

    def until(
        self, *, inputs: int | None = None, seconds: float | None = None, progress: Callable[[], None] | None = None
    ) -> list[Outcome]:
        """Until so many inputs of all targets, in proportion to their shares, or for so many seconds; `progress` is
        told of each batch's end."""
        end = None if seconds is None else time.monotonic() + seconds
        shares = sum(outcome.target.share for outcome in self.outcomes)
        wanted = {
            each.target.name: None if inputs is None else -(-inputs * each.target.share // shares)
            for each in self.outcomes
        }
        gc.collect()
        gc.freeze()
        while True:
            while len(self._running) < self._jobs and (batch := self._take(wanted, end)) is not None:
                self._fork(batch)
            if not self._running:
                return self.outcomes
            self._reap()
            if progress is not None:
                progress()

    def _take(self, wanted: dict[str, int | None], end: float | None) -> _Batch | None:
        while self._again:
            batch = self._again.pop()
            if not batch.outcome.abandoned:
                return batch
        if end is not None and time.monotonic() > end:
            return None

        def left(outcome: Outcome) -> int:
            name, done = outcome.target.name, self._next[outcome.target.name] - self._first
            most = wanted[name]
            usual = min(self._batch, outcome.target.share)
            return 0 if outcome.abandoned else usual if most is None else min(usual, most - done)

        open_ = [outcome for outcome in self.outcomes if left(outcome) > 0]
        if not open_:
            return None
        outcome = min(open_, key=lambda each: (self._next[each.target.name] - self._first) / each.target.share)
        first, count = self._next[outcome.target.name], left(outcome)
        self._next[outcome.target.name] += count
        return _Batch(outcome, first, count)

    def _fork(self, batch: _Batch) -> None:
        memory = "/dev/shm"
        folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
        place = mmap.mmap(-1, mmap.PAGESIZE)
        child = os.fork()
        if child == 0:
            run_batch(batch.outcome.target, batch.first, batch.count, folder, place)
        self._running[child] = _Child(batch, folder, place)

    def _reap(self) -> None:
        process, status = os.waitpid(-1, 0)
        child = self._running.pop(process)
        batch = child.batch
        try:
            if status == 0:
                self._add(batch, json.loads((child.folder / RESULT).read_text()))
            else:
                self._died(batch, status, int.from_bytes(child.place[:8], "little"), child.folder)
        finally:
            child.place.close()
            shutil.rmtree(child.folder, ignore_errors=True)

    def _add(self, batch: _Batch, result: dict[str, Any]) -> None:
        outcome = batch.outcome
        faults = [Fault(*fault) for fault in result["faults"]]
        if batch.alone is not None:
            repeated = next((fault for fault in faults if fault.kind == batch.alone.kind), None)
            if repeated is not None:
                outcome.faults.append(repeated)
            elif batch.alone.kind != "slow":
                outcome.faults.append(Fault(batch.first, batch.alone.kind, f"{batch.alone.what} (not when alone)"))
            return
        outcome.inputs += batch.count
        outcome.accepted += result["accepted"]
        outcome.sites.update(result["sites"])
        outcome.seconds += result["cpu"]
        outcome.longest = max(outcome.longest, result["longest"])
        for fault in faults:
            if fault.kind == "slow":  # the machine may have been busy
                self._again.append(_Batch(outcome, fault.seed, 1, alone=fault))
            else:
                outcome.faults.append(fault)

    def _died(self, batch: _Batch, status: int, seed: int, folder: Path) -> None:
        """The input that it was at is tried once more alone; those before and after it go on."""
        outcome = batch.outcome
        code = os.waitstatus_to_exitcode(status)
        kind = "hang" if code == -signal.SIGALRM else "crash"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = (folder / SAID).read_text(errors="replace").split("\n") if (folder / SAID).exists() else []
        fault = Fault(seed, kind, " | ".join([how, *(line.strip() for line in said if line.strip())][:12])[:1000])
        if seed == STARTING:
            outcome.faults.append(Fault(batch.first, "start", fault.what))
            outcome.abandoned = True
            return
        if batch.alone is not None:
            outcome.faults.append(fault)
            outcome.inputs += 1
            if sum(each.kind in ("hang", "crash") for each in outcome.faults) >= DEATHS:
                outcome.abandoned = True
            return
        before, after = seed - batch.first, batch.first + batch.count - seed - 1
        if after:
            self._again.append(_Batch(outcome, seed + 1, after))
        if before:
            self._again.append(_Batch(outcome, batch.first, before))
        self._again.append(_Batch(outcome, seed, 1, alone=fault))
