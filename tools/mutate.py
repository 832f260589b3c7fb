"""Make small mistakes in the code, one at a time, and see which of them no test notices.

    python tools/mutate.py                              # 150 mutants, of the packages that must not be wrong
    python tools/mutate.py -n 40 ernie_rt/runtime       # of what is named
    python tools/mutate.py --again build/mutants.json   # those that survived, after tests were added

Each mutant runs alone, in a copy of the tree, against the nearest tests. Tables and the survivors are printed; the
report has the others as well, with the test that killed each. Of a survivor the question is whether a test is missing,
the mistake changes nothing, or nobody needs the code.

Two tools for this exist. mutmut 3 rewrites every function of a package into all of its mutants behind a switch. That
hides sources from Triton, which compiles them, and a line outside of a function is none; first of all it runs the whole
suite, with a hook in each function, to learn who calls what. cosmic-ray writes mutants into the tree that one works in,
one command for all, which here takes seconds to import what it needs, and has no sample spread over packages. Neither
keeps a mutant of code that kills processes and removes folders from doing so.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final

from mutation import report
from mutation.nearest import Nearness
from mutation.operators import Mutant, mutants, signatures
from mutation.running import Knowledge, Trial, Verdict, judged

ROOT: Final = Path(__file__).parents[1]
ROOTS: Final = ("backends", "plugins")
"""Folders whose packages are imported without the folder's name."""
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime": ("ernie_rt/runtime/",),
    "files": (
        "ernie_rt/files.py",
        "ernie_rt/writing.py",
        "ernie_rt/temporary.py",
        "ernie_rt/untrusted_json.py",
        "ernie_rt/worker.py",
    ),
    "weights": ("ernie_rt/weights/",),
    "receipts": ("ernie_rt/receipts/",),
    "vision": ("ernie_rt/vision/",),
    "planning": ("ernie_rt/planning/",),
    "text": ("ernie_rt/text/",),
    "generation": ("ernie_rt/generation/",),
    "sampling": ("ernie_rt/sampling/",),
    "serve": ("plugins/ernie_rt_serve/",),
    "verify": ("backends/ernie_rt_onnx/verify", "backends/ernie_rt_onnx/apart.py", "backends/ernie_rt_onnx/tiled.py"),
    "eager": ("backends/ernie_rt_eager/",),
    "cudagraph": ("backends/ernie_rt_cudagraph/",),
}


def tree(root: Path) -> list[str]:
    """The files of the tree as they are now, with libraries that were built, without what git ignores."""
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    built = (path.relative_to(root).as_posix() for base in ROOTS for path in (root / base).rglob("*.so"))
    return sorted(name for name in {*names, *built} if name and (root / name).is_file())


def sample(
    found: Mapping[str, Sequence[Mutant]], number: int, seed: int, sources: Mapping[str, bytes]
) -> list[tuple[str, Mutant]]:
    """So many mutants with their packages: each package in turn, and within a package each operator."""
    chance = random.Random(seed)
    turns = []
    for package in sorted(found):
        kinds = defaultdict(list)
        for mutant in found[package]:
            kinds[mutant.operator].append((package, mutant))
        lists = [chance.sample(kinds[kind], len(kinds[kind])) for kind in sorted(kinds)]
        chance.shuffle(lists)
        turns.append(chain.from_iterable(zip_longest(*lists)))
    chosen: list[tuple[str, Mutant]] = []
    for each in chain.from_iterable(zip_longest(*turns)):
        if len(chosen) == number:
            break
        if each is not None and each[1].differs(sources[each[1].path]):
            chosen.append(each)
    return chosen


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("paths", nargs="*", help="files and folders to mutate, in place of the default ones")
    add("-n", "--number", type=int, default=150)
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=2, help="how many at a time")
    add("--budget", type=float, default=40, metavar="SECONDS", help="how much work the tests of one may be")
    add(
        "--patience", type=float, default=60, metavar="SECONDS", help="where nothing has happened for so long, it hangs"
    )
    add("--json", type=Path, metavar="FILE", help="the report, build/mutants.json")
    add("--again", type=Path, metavar="FILE", help="the survivors of an earlier report")
    add("--list", action="store_true", help="show the mutants, run nothing")
    return parser


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    asked = options().parse_args(arguments)
    files = tree(root)
    bases = {name: next((base for base in ROOTS if name.startswith(base + "/")), ".") for name in files}
    code = {name: base for name, base in bases.items() if name.endswith(".py") and not name.startswith("tests/")}
    sources = {name: (root / name).read_bytes() for name in code}
    if asked.again:
        chosen = report.survivors(asked.again, sources)
    else:
        packages = {path.rstrip("/"): (path,) for path in asked.paths} or PACKAGES
        known = signatures(ast.parse(source) for source in sources.values())
        found = {
            package: [each for name in code if name.startswith(starts) for each in mutants(name, sources[name], known)]
            for package, starts in packages.items()
        }
        chosen = sample(found, asked.number, asked.seed, sources)
    if asked.list:
        for _, mutant in chosen:
            print(f"{mutant.operator}\n{report.diff(mutant, sources[mutant.path])}")
        return 0

    out: Path = asked.json or root / "build" / "mutants.json"
    times = out.with_name("tests.json")
    knowledge = Knowledge(**json.loads(times.read_text())) if times.exists() else Knowledge()
    package_of = {mutant: package for package, mutant in chosen}
    verdicts: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        verdicts.append(verdict)
        mutant, took = verdict.mutant, f"{verdict.outcome:9}{verdict.seconds:6.1f} s"
        said = f"{len(verdicts):4} {took} {mutant.operator:11} {mutant.path}:{mutant.line} {verdict.by}"
        print(said, file=sys.stderr, flush=True)
        report.write(out, verdicts, [package_of[each.mutant] for each in verdicts], sources)
        times.write_text(json.dumps({"seconds": knowledge.seconds, "sound": sorted(knowledge.sound)}, indent=1))

    trial = Trial(root, sources, Nearness(root, code, root / "tests"), knowledge, asked.budget, asked.patience)
    judged(trial, files, [mutant for _, mutant in chosen], asked.jobs, tell)
    print(report.table((package_of[verdict.mutant], verdict) for verdict in verdicts), end="\n\n")
    print(report.table((verdict.mutant.operator, verdict) for verdict in verdicts))
    survived = [verdict for verdict in verdicts if not verdict.killed]
    for verdict in survived:
        mutant, spent = verdict.mutant, verdict.said and f" ({verdict.said}: not all of the nearest tests have run)"
        print(f"\n{mutant.operator}{spent}\n{report.diff(mutant, sources[mutant.path])}", end="")
    if knowledge.left_out:
        print("\nThese fail without a mutant, and were left out: " + ", ".join(sorted(knowledge.left_out)))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
