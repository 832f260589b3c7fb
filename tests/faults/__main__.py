"""`python -m faults`: every part in full, and its figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from faults.bits import bits
from faults.calls import compiler, preloaded
from faults.failing import failing
from faults.full import full
from faults.killing import killing
from faults.power import power
from faults.racing import racing
from faults.writers import WRITERS, Writer, prepare

Part = Callable[[Path, Sequence[Writer], int | None], dict[str, Any]]
PARTS: Final[dict[str, Part]] = {
    "killing": killing, "racing": racing, "bits": bits, "full": full, "failing": failing, "power": power,
}  # fmt: skip
NEEDS: Final = {"full": "MAY_MOUNT", "failing": "LD_PRELOAD", "power": "LD_PRELOAD"}
"""What a process must have been started with, by the variable that tells."""
APART: Final = ("unshare", "--mount", "--map-root-user")
"""Starts a process that may mount file systems, which nobody else sees."""


def main() -> None:
    if not __debug__:
        sys.exit("what is found here is told by assert statements: run it without -O")
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="may be given several times; all when not given")
    parser.add_argument("--writer", action="append", choices=[each.name for each in WRITERS], help="likewise")
    parser.add_argument("--share", type=int, help="about one trial in so many, and quick writers, alone")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    given = parser.parse_args()
    if "FAULTS" not in os.environ:
        sys.exit(_again())
    quick = [each for each in WRITERS if given.share is None or not each.slow]
    writers = [each for each in WRITERS if each.name in given.writer] if given.writer else quick
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        prepare(base / "given")
        for part in given.part or PARTS:
            began = time.perf_counter()
            if (needed := NEEDS.get(part)) and needed not in os.environ:
                found[part] = {"faults": [], "skipped": "not possible here"}
                continue
            found[part] = PARTS[part](base, writers, given.share)
            found[part]["seconds"] = round(time.perf_counter() - began, 1)
    text = json.dumps(found, indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")
    sys.exit(any(each["faults"] for each in found.values()))


def _again() -> int:
    """The same in a process with all that the parts need, as far as it is to be had."""
    again = [sys.executable, "-m", "faults", *sys.argv[1:]]
    environment = os.environ | {"FAULTS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if compiler() is not None:
            environment |= preloaded(Path(folder))
        if sys.platform == "linux" and not subprocess.run([*APART, "true"], capture_output=True).returncode:
            again, environment = [*APART, *again], environment | {"MAY_MOUNT": "1"}
        return subprocess.run(again, env=environment).returncode


if __name__ == "__main__":
    main()
