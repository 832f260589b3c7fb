"""What ernie-rt has kept for itself, and somebody has changed: rows of a cache, digests; and what backends declare.

Of what is kept nothing is an error: a record that is not to the byte what was written is none.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.conformance.declared import Expectations
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.weights.stamps import SETTLED_NS, Stamp, Stamps
from fuzz.mutations import changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target

DECLARED = {
    "features": ["ops"], "sampler": "pkg.mod:function",
    "quirks": [{"check": "L1/x", "reason": "y", "factor": 2.0, "dtype": "float16"}],
    "xfails": [{"check": "L1/x", "reason": "y"}], "skips": [{"check": "L1/x", "reason": "y", "device": "cpu"}],
}  # fmt: skip
NAME, KEY, ROWS = "ab" * 32, bytes(range(64)), bytes(range(200))


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
    store = RowStore(scratch / "rows", 1 << 20)
    store.write(NAME, KEY, ROWS, 0)
    (record,) = (scratch / "rows").glob("*.rows")
    (secret,) = ((scratch / "rows" / name) for name in ("secret",))
    written = record.read_bytes()
    stamps, file, declared = Stamps(scratch / "stamps"), scratch / "file", scratch / "declared.json"
    file.write_bytes(b"x")
    stamp = Stamp.of(file.stat())
    stamps.remember(file, stamp, "0" * 64, time.time_ns() + 2 * SETTLED_NS)
    (entry,) = (scratch / "stamps").iterdir()
    remembered = entry.read_bytes()

    def attempt(rng: Random) -> None:
        match rng.randrange(4):
            case 0:
                replace(rng, record, written)
                rows = store.read(NAME, KEY, len(ROWS))
                assert rows is None or bytes(rows) == ROWS, "other rows than were written"
            case 1 if rng.random() < 0.3:
                (scratch / "open").mkdir(exist_ok=True)
                (scratch / "open").chmod(0o777)
                RowStore(rng.choice((scratch / "open", file / "x", file, scratch / "nul\0")), 1 << 20)
            case 1:
                replace(rng, secret, bytes(32))
                try:
                    other = RowStore(scratch / "rows", 1 << 20)
                finally:
                    if secret.is_dir() and not secret.is_symlink():
                        secret.rmdir()
                other.read(NAME, KEY, len(ROWS))
            case 2:
                if rng.random() < 0.5:
                    replace(rng, entry, remembered)
                else:
                    replace(rng, entry, json_bytes(rng, changed(rng, json.loads(remembered))))
                digest = stamps.recall(file, stamp)  # whoever may write there is who believes it
                assert digest is None or len(digest) == 64
            case _:
                declared.write_bytes(json_bytes(rng, declaration(rng)))
                Expectations.read(declared)

    return attempt


TARGET = Target(
    "kept",
    ("ernie_rt.runtime.row_store", "ernie_rt.conformance.declared"),
    start,
    share=5_000,
    excused={
        "declares what cannot be read": "that is asked of a backend, by the name of its file",
        'WriteError("cannot be written"': "nothing is written",
    },
)
