"""What backends declare of themselves; and digests that are remembered, in which nothing that is wrong is an error."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.conformance.declared import Expectations
from ernie_rt.weights.stamps import SETTLED_NS, Stamp, Stamps
from fuzz.mutations import changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target

DECLARED = {
    "features": ["ops"], "sampler": "pkg.mod:function",
    "quirks": [{"check": "L1/x", "reason": "y", "factor": 2.0, "dtype": "float16"}],
    "xfails": [{"check": "L1/x", "reason": "y"}], "skips": [{"check": "L1/x", "reason": "y", "device": "cpu"}],
}  # fmt: skip


def replace(rng: Random, path: Path, data: bytes) -> None:
    """Something else under a name."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    match rng.randrange(8):
        case 0:
            path.mkdir(mode=0o700)
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(rng.choice(("/dev/zero", "/proc/self/mem", "nowhere", path.name)))
        case 3:
            path.write_bytes(data)
            path.chmod(rng.choice((0o666, 0o644, 0o600)))
        case 4:
            path.write_bytes(rng.choice((b"", data[:-1], data + b"\0", bytes(len(data)))))
        case _:
            path.write_bytes(damaged(rng, data))
            path.chmod(0o600)


def declaration(rng: Random) -> Any:
    """What a backend declares, with something else in it."""
    tree: Any = changed(rng, DECLARED, rng.choice((0, 1, 1, 2)))
    if not isinstance(tree, dict) or rng.random() < 0.3:
        return tree
    entry = {"check": "L1/x", "reason": "y", "factor": 2.0}
    entry[rng.choice(("factor", "check", "x"))] = rng.choice((value(rng), 0.5, 1e9, ""))
    nameless = [{"check": "x", "reason": ""}]
    others = (value(rng), [value(rng)], ["ops", []], [entry], [entry], nameless, "a b")
    tree[rng.choice(sorted(DECLARED))] = rng.choice(others)
    return tree


def start(scratch: Path) -> Attempt:
    stamps, file, declared = Stamps(scratch / "stamps"), scratch / "file", scratch / "declared.json"
    file.write_bytes(b"x")
    stamp = Stamp.of(file.stat())
    stamps.remember(file, stamp, "0" * 64, time.time_ns() + 2 * SETTLED_NS)
    (entry,) = (scratch / "stamps").iterdir()
    remembered = entry.read_bytes()

    def attempt(rng: Random) -> None:
        if rng.random() < 0.3:
            changes = json_bytes(rng, changed(rng, json.loads(remembered)))
            replace(rng, entry, rng.choice((remembered, changes)))
            digest = stamps.recall(file, stamp)  # whoever may write there is who believes it
            assert digest is None or len(digest) == 64
            return
        declared.write_bytes(json_bytes(rng, declaration(rng)))
        Expectations.read(declared)

    return attempt


TARGET = Target(
    "declared",
    ("ernie_rt.conformance.declared",),
    start,
    share=2_000,
    excused={"declares what cannot be read": "that is asked of a backend, by the name of its file"},
)
