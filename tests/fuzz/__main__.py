"""`python -m fuzz`: many inputs of all targets or some, or one input again, with its traceback."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from fuzz.running import OFTEN, Fault, Outcome, Run, reached
from fuzz.target import known, named

EVERY = 30
"""Seconds from one line about how far it is to the next."""


def main() -> int:
    if not __debug__:
        sys.exit("what is found here is told by assert statements: run it without -O")
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=known(), help="one of them, or several; else all")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--inputs", type=int, help="of all targets together; as many as the default suite has")
    until.add_argument("--seconds", type=float)
    until.add_argument("--seed", type=int, help="this input of one target alone, in this process")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--jobs", type=int, default=1, help="batches at a time")
    parser.add_argument("--json", type=Path, help="a file for what was reached and what went wrong")
    asked = parser.parse_args()
    targets = [named(name) for name in asked.target or known()]
    if asked.seed is not None:
        with tempfile.TemporaryDirectory() as scratch:
            targets[0].start(Path(scratch))(targets[0].random(asked.seed))
        print("accepted")
        return 0
    inputs = asked.inputs
    if inputs is None and asked.seconds is None:
        inputs = sum(target.share for target in targets)
    started = time.monotonic()
    run = Run(targets, jobs=asked.jobs, first=asked.first)
    shown = started

    def progress() -> None:
        nonlocal shown
        if time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            done, faults = (sum(each) for each in zip(*((o.inputs, len(o.faults)) for o in run.outcomes), strict=True))
            print(f"after {shown - started:.0f} s: {done:,} inputs, {faults} faults", file=sys.stderr)

    outcomes = run.until(inputs=inputs, seconds=asked.seconds, progress=progress)
    checks = reached(outcomes)
    for outcome in outcomes:
        show(outcome, checks)
    faults = sum(len(outcome.faults) for outcome in outcomes)
    total = sum(outcome.inputs for outcome in outcomes)
    print(f"{total:,} inputs, {faults} faults, {time.monotonic() - started:.0f} s")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(
            json.dumps([outcome.to_json(checks) for outcome in outcomes], indent=1, ensure_ascii=False)
        )
    return 1 if faults else 0


def show(outcome: Outcome, checks: Mapping[str, int]) -> None:
    each = 1000 * outcome.seconds / max(outcome.inputs, 1)
    rarely = outcome.rarely(checks, OFTEN)
    print(
        f"{outcome.target.name}: {outcome.inputs:,} inputs, {outcome.accepted:,} accepted, {each:.2f} ms each, "
        f"at most {outcome.longest:.2f} s; {len(outcome.checks) - len(rarely)} of {len(outcome.checks)} checks reached "
        f"{OFTEN} times{', given up' if outcome.abandoned else ''}"
    )
    for name, text in rarely.items():
        print(f"    {checks.get(name, 0):4} times  {name}  {text:.110}")
    alike: defaultdict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in outcome.faults:
        alike[fault.kind, fault.what.split(": ")[0]].append(fault)
    for (kind, _), faults in alike.items():
        seeds = ", ".join(str(fault.seed) for fault in faults[:5])
        print(f"    FAULT {kind}, {len(faults)} times, by seeds {seeds}: {faults[0].what}")


if __name__ == "__main__":
    sys.exit(main())
