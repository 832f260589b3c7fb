"""Mutants run against their nearest tests, a few at a time; what is learnt of tests on the way."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from mutation.apart import ALONE, WARM
from mutation.nearest import Nearness
from mutation.operators import Mutant

UNKNOWN: Final = 3.0
"""Seconds that a test file is thought to take before it has run once."""


@dataclass(slots=True)
class Verdict:
    """`outcome` is failed, broken (at import or collection), crash, hang or survived; `by` is the test that told."""

    mutant: Mutant
    outcome: str
    by: str
    seconds: float
    tests: list[str]
    said: str = ""

    @property
    def killed(self) -> bool:
        return self.outcome != "survived"


@dataclass
class Knowledge:
    """What is known of tests without a mutant: who is sound, who fails or hangs anyway, and how long files take."""

    seconds: dict[str, float] = field(default_factory=dict)
    sound: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sound = set(self.sound)  # in a file it is a list


class Apart:
    """A process that runs tests in its own copy of the tree, which it mounts on the folder `scratch`."""

    def __init__(self, root: Path, files: list[str], scratch: Path, warm: Sequence[str] = WARM) -> None:
        program = Path(__file__).with_name("apart.py")
        self._process = subprocess.Popen(
            [*ALONE, sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask({"root": str(root), "scratch": str(scratch), "files": files, "warm": warm})

    def run(
        self, tests: Sequence[str], left_out: set[str], patience: float, budget: float, **change: str
    ) -> dict[str, Any]:
        limits = {"patience": patience, "budget": budget}
        return self._ask({"tests": tests, "left_out": sorted(left_out)} | limits | change)

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that runs tests has ended; `unshare --mount --pid` has to be allowed here")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        with self._process:  # which closes its pipes, so that it ends
            pass


@dataclass(frozen=True)
class Trial:
    root: Path
    sources: Mapping[str, bytes]
    nearness: Nearness
    known: Knowledge
    budget: float
    patience: float

    def judge(self, apart: Apart, mutant: Mutant) -> Verdict:
        """Run the nearest tests, then others as far as the budget goes, until one fails that does not fail anyway."""
        source = self.sources[mutant.path]
        change = {"path": mutant.path, "before": source.decode(), "after": mutant.of(source).decode()}
        ran: list[str] = []
        begun, left = time.monotonic(), self.budget
        for tests in self._rounds(mutant.path):
            ran += tests
            while True:
                told = apart.run(tests, self.known.left_out, self.patience, left, **change)
                left -= told["work"]
                if told["outcome"] == "over budget":
                    return Verdict(mutant, "survived", "", time.monotonic() - begun, ran, told["outcome"])
                if told["outcome"] == "passed":
                    self.known.seconds.update(told["files"])
                    break
                by = told["test"] or tests[0]
                if self._sound(apart, by):
                    return Verdict(mutant, told["outcome"], by, time.monotonic() - begun, ran, told["said"][-400:])
                if by in tests:
                    tests = [test for test in tests if test != by]
                if not tests:
                    break
        return Verdict(mutant, "survived", "", time.monotonic() - begun, ran)

    def _rounds(self, path: str) -> list[list[str]]:
        near, others = self.nearness.of(path, self.known.seconds)
        left = self.budget - sum(self.known.seconds.get(test, UNKNOWN) for test in near)
        more = []
        for test in others:
            left -= self.known.seconds.get(test, UNKNOWN)
            if left > 0:
                more.append(test)
        rounds = [[test for test in each if test not in self.known.left_out] for each in (near, more[:6], more[6:])]
        return [tests for tests in rounds if tests]

    def _sound(self, apart: Apart, test: str) -> bool:
        """Whether a test passes without a mutant: if not, it is left out from now on."""
        if test not in self.known.sound | self.known.left_out:
            fine = apart.run([test], set(), self.patience, self.budget)["outcome"] == "passed"
            (self.known.sound if fine else self.known.left_out).add(test)
        return test in self.known.sound


def judged(
    trial: Trial, files: list[str], mutants: Sequence[Mutant], jobs: int, tell: Callable[[Verdict], None]
) -> list[Verdict]:
    """What became of each mutant; `tell` hears of it at once. An interrupt ends it with what there is."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    done: queue.SimpleQueue[Verdict | Exception | None] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)

    def work(scratch: Path) -> None:
        try:
            apart = Apart(trial.root, files, scratch)
            try:
                while True:
                    done.put(trial.judge(apart, waiting.get_nowait()))
            except queue.Empty:
                done.put(None)
            finally:
                apart.close()
        except Exception as error:
            done.put(error)

    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        # None within another's: what is above the tests' own folders cannot be changed by them.
        scratches = [stack.enter_context(TemporaryDirectory(prefix="mutants-")) for _ in range(jobs)]
        threads = [threading.Thread(target=work, args=(Path(scratch),), daemon=True) for scratch in scratches]
        for thread in threads:
            thread.start()
        working = jobs
        try:
            while working:
                told = done.get()
                if isinstance(told, Exception):
                    raise told
                if told is None:
                    working -= 1
                else:
                    verdicts.append(told)
                    tell(told)
        except KeyboardInterrupt:
            pass
    return verdicts
