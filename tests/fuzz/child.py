"""A batch of inputs in a forked child: each by a clock and within limits, what was reached counted by check."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import signal
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

from ernie_rt.errors import ErnieRtError
from fuzz.sites import ROOT, raised_at
from fuzz.target import Target

HANGS: Final = 10.0
"""Seconds on the clock after which an input is said to hang, and its process ends."""
SLOW: Final = 1.0
"""Seconds of the processor that an input may take."""
MEMORY: Final = 100 << 20
"""Bytes of address space that a batch may take beyond what it has when its target has started."""
HANDLES: Final = 16
"""How many files more may be open after a batch than before it."""
LONGEST: Final = 8_000
"""Characters that an error may have, all its parts together."""
STARTING: Final = (1 << 63) - 1
"""What the place says as long as the target has not started."""
RESULT, SAID = "result.json", "said.txt"


def run_batch(target: Target, first: int, count: int, folder: Path, place: mmap.mmap) -> NoReturn:
    """Feed the inputs of `count` seeds; the counts go to a file of `folder`. Ends the process.

    `place` is shared with whoever waits, and says which seed it was when the process dies.
    """
    code = 1
    try:
        _settle(folder)
        result = _attempt(target, first, count, folder / "scratch", place)
        (folder / RESULT).write_text(json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle(folder: Path) -> None:
    """Nothing that a batch does is seen or found by anybody else."""
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    (folder / "scratch").mkdir()
    for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR"):
        (folder / name).mkdir()
        os.environ[name] = str(folder / name)


def _attempt(target: Target, first: int, count: int, scratch: Path, place: mmap.mmap) -> dict[str, Any]:
    _mark(place, STARTING)
    attempt = target.start(scratch)
    _limit_memory()
    sites: collections.Counter[str] = collections.Counter()
    faults: list[tuple[int, str, str]] = []
    accepted, total, longest, handles = 0, 0.0, 0.0, _handles()
    for seed in range(first, first + count):
        _mark(place, seed)
        drawn = target.random(seed)
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        started = time.process_time()
        try:
            attempt(drawn)
            accepted += 1
        except ErnieRtError as error:
            sites[str(raised_at(error.__traceback__))] += 1
            with contextlib.suppress(UnicodeEncodeError):
                if len(str(error)) > LONGEST:
                    faults.append((seed, "endless", f"an error of {len(str(error)):,} characters: {error!s:.100}…"))
        except MemoryError as error:
            faults.append((seed, "memory", _where(error)))
        except BaseException as error:
            faults.append((seed, "unnamed", _where(error)))
        took = time.process_time() - started
        signal.setitimer(signal.ITIMER_REAL, 0)
        total += took
        longest = max(longest, took)
        if took > SLOW:
            faults.append((seed, "slow", f"{took:.1f} s of the processor"))
    gc.collect()
    if _handles() > handles + HANDLES:
        faults.append((first, "leak", f"{_handles() - handles} files are open after a batch"))
    return {"accepted": accepted, "sites": sites, "faults": faults, "cpu": total, "longest": longest}


def _mark(place: mmap.mmap, seed: int) -> None:
    place[:8] = seed.to_bytes(8, "little")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * mmap.PAGESIZE + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _where(error: BaseException) -> str:
    """What an error says, and the innermost line of the project that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(ROOT))]
    at = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "nowhere"
    return f"{type(error).__name__} at {at}: {str(error)[:300]}"
