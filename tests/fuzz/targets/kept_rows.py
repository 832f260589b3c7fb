"""Folders of `--cache-dir` that somebody has meddled with: records, the secret, the folder itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Final

from ernie_rt.runtime.row_store import MAGIC, SECRET, SECRET_BYTES, RowStore
from ernie_rt.writing import write_atomic
from fuzz.mutations import TEXTS, damaged
from fuzz.target import Attempt, Target

NAMES: Final = tuple(f"{n:02x}" * 32 for n in range(4))
STRANGE: Final = (
    "x.rows",
    "../x",
    ".tmp",
    f".{NAMES[0]}.rows.{'0' * 16}.tmp",
    f"{NAMES[0].upper()}.rows",
    "secret.tmp",
)


def start(folder: Path) -> Attempt:
    place = folder / "cache"

    def attempt(rng: Random) -> None:
        for old in (place, folder / "other"):
            if old.is_symlink() or old.is_file():
                old.unlink()
            shutil.rmtree(old, ignore_errors=True)
        if rng.random() < 0.2:
            odd_place(place, rng)
        store = RowStore(place, rng.choice((0, 200, 1 << 20)))
        written: dict[tuple[str, bytes], bytes] = {}
        for _ in range(rng.randrange(1, 6)):
            match rng.randrange(4):
                case 0 | 1:
                    name, key, rows = rng.choice(NAMES), rng.randbytes(4), rng.randbytes(rng.choice((0, 8, 64)))
                    store.write(name, key, rows, rng.choice((0, 1, 2**62)))
                    written = {at: there for at, there in written.items() if at[0] != name} | {(name, key): rows}
                case 2:
                    meddle(place, rng)
                case _:
                    store = RowStore(place, store.nbytes)
        for (name, key), rows in written.items():
            found = store.read(name, key, len(rows))
            assert found is None or bytes(found) == rows
            assert store.read(name, key + b"x", len(rows)) is None
        record = rng.choice(NAMES)
        forged = MAGIC + bytes.fromhex(record) + b"keys" + bytes(8 + 32)
        if not os.path.lexists(place / f"{record}.rows"):
            (place / f"{record}.rows").write_bytes(forged)
            assert store.read(record, b"keys", 8) is None, "what was not written with the secret is no record"

    return attempt


def odd_place(place: Path, rng: Random) -> None:
    """Something in the place of a folder of one's own."""
    match rng.randrange(5):
        case 0:
            place.write_bytes(b"")
        case 1:
            place.symlink_to("nowhere")
        case 2:
            place.mkdir(0o700)
            place.chmod(rng.choice((0o777, 0o770, 0o1777)))
        case 3:
            (place.parent / "other").mkdir(0o700)
            place.symlink_to("other")
        case _:
            place.mkdir(0o700)
            (place / SECRET).write_bytes(rng.randbytes(rng.choice((0, SECRET_BYTES, SECRET_BYTES + 1, 1 << 20))))
            (place / SECRET).chmod(rng.choice((0o600, 0o644, 0o666, 0)))


def meddle(place: Path, rng: Random) -> None:
    """Change a file of the folder, put something in its place, or add one that nobody has written."""
    files = sorted(each for each in place.iterdir())
    name = rng.choice(files) if files and rng.random() < 0.7 else place / rng.choice((*STRANGE[2:], f"{NAMES[1]}.rows"))
    match rng.randrange(6):
        case 0 | 1 if name.is_file() and not name.is_symlink():
            name.write_bytes(damaged(rng, name.read_bytes()))
        case 2 if name.name != SECRET:
            name.unlink(missing_ok=True)
            name.symlink_to(rng.choice(("/dev/zero", "nowhere", name.name, SECRET)))
        case 3 if name.name != SECRET:
            name.unlink(missing_ok=True)
            os.mkfifo(name)
        case 4:
            name.unlink(missing_ok=True)
        case _:
            if not os.path.lexists(name):
                with write_atomic(name) as file:
                    file.write(rng.choice(TEXTS).encode(errors="surrogatepass"))
            os.utime(name, (0, 0), follow_symlinks=False)


TARGET = Target(
    "kept_rows",
    ("ernie_rt.runtime.row_store",),
    start,
    share=1000,
    excused={"found=error.strerror": "the disk takes what it is given"},
)
