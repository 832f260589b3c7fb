"""Build a wheel and an sdist of the commit that is checked out, look into both, and try the wheel in bare environments.

    pip install wheel
    python tools/dist.py             # into dist/

The wheel is the one for every platform, without the library of operators: wheels.py makes the others. The same commit,
built by the same versions of setuptools and wheel, gives the same bytes, and so does its sdist.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from packaging.metadata import Metadata
from wheels import ROOT, committed, pack, run, unpacked

ROOTS: Final = ("", "backends/", "plugins/")
"""Where the packages of the wheel are in the tree."""
PACKAGES: Final = ("ernie_rt/", "backends/", "plugins/")
BESIDE: Final = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "pyproject.toml"}
"""What an sdist has of the tree beside the packages."""
SDIST_ONLY: Final = "backends/ernie_rt_onnx/ops/"
"""The sources of the library of operators."""
QUESTION: Final = "How many grams are in 5 kilograms?"
ANSWER: Final = "5 kilograms = 5000 grams\n"


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, the backend that then answers, and what is refused with the extra that it needs."""

    extra: str
    backend: str
    refused: Mapping[tuple[str, ...], str]

    def __str__(self) -> str:
        return f"ernie-rt[{self.extra}]" if self.extra else "ernie-rt"


ON_ONNX: Final = ("run", "demo", QUESTION, "--backend", "onnx")
ON_EAGER: Final = ("run", "demo", QUESTION, "--backend", "eager")
SERVE: Final = ("serve", "demo")
ENVIRONMENTS: Final = (
    Environment("", "reference", {ON_ONNX: "onnx", ON_EAGER: "torch", SERVE: "serve"}),
    Environment("onnx", "onnx", {ON_EAGER: "torch", SERVE: "serve"}),
    Environment("serve", "reference", {ON_ONNX: "onnx", ON_EAGER: "torch"}),
    Environment("torch", "eager", {ON_ONNX: "onnx", SERVE: "serve"}),
)

Done = subprocess.CompletedProcess[str]
"""What a command said, and its exit code."""


def build_sdist(tree: Path, out: Path, time: str) -> Path:
    """setuptools makes it; here it gets the times, owners and order that make it the same every time."""
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", build, folder], cwd=tree, check=True, capture_output=True)
        (made,) = Path(folder).iterdir()
        with (
            tarfile.open(made) as old,
            (out / made.name).open("wb") as raw,
            gzip.GzipFile("", "wb", mtime=int(time), fileobj=raw) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as new,
        ):
            for member in sorted(old.getmembers(), key=lambda member: member.name):
                told = tarfile.TarInfo(member.name)
                told.type, told.size, told.mtime = member.type, member.size, int(time)
                told.mode = 0o755 if member.isdir() else 0o644
                new.addfile(told, old.extractfile(member))
        return out / made.name


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("/")}


def sdist_files(sdist: Path) -> dict[str, bytes]:
    """By their names below the one folder that it holds."""
    files = {}
    with tarfile.open(sdist) as file:
        for member in file:
            if member.isfile():
                content = file.extractfile(member)
                assert content is not None
                files[member.name.partition("/")[2]] = content.read()
    return files


def tree_files(tree: Path) -> dict[str, bytes]:
    """What the commit has of packages, and of what an sdist has beside them."""
    paths = [path for top in PACKAGES for path in (tree / top).rglob("*") if path.is_file()]
    paths += [tree / name for name in BESIDE if (tree / name).is_file()]
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in paths}


def troubles(tree: Mapping[str, bytes], wheel: Mapping[str, bytes], sdist: Mapping[str, bytes]) -> Iterator[str]:
    """What an archive has that is not of the commit, and what of the commit it lacks."""
    there = {name.removeprefix(next(root for root in reversed(ROOTS) if name.startswith(root))): name for name in tree}
    packaged = {short for short, name in there.items() if name.startswith(PACKAGES) and not name.startswith(SDIST_ONLY)}
    own = {name for name in wheel if name.partition("/")[0].endswith(".dist-info")}
    yield from (f"the wheel lacks {name}" for name in sorted(packaged - wheel.keys()))
    for name in sorted(wheel.keys() - own):
        if name not in packaged or wheel[name] != tree[there[name]]:
            yield f"the wheel has {name}, which is not of the commit"
    made = {name for name in sdist if name in ("PKG-INFO", "setup.cfg") or name.startswith("ernie_rt.egg-info/")}
    yield from (f"the sdist lacks {name}" for name in sorted(tree.keys() - sdist.keys()))
    for name in sorted(sdist.keys() - made):
        if sdist[name] != tree.get(name):
            yield f"the sdist has {name}, which is not of the commit"
    (metadata,) = (wheel[name] for name in own if name.endswith(".dist-info/METADATA"))
    for archive, text in (("wheel", metadata), ("sdist", sdist["PKG-INFO"])):
        try:
            Metadata.from_email(text, validate=True)
        except ExceptionGroup as wrong:
            yield from (f"the metadata of the {archive}: {each}" for each in wrong.exceptions)


def listing(archive: Path, files: Mapping[str, bytes]) -> str:
    lines = [f"{archive.name}: {len(files)} files, {archive.stat().st_size:,} bytes packed"]
    return "\n".join([*lines, *(f"{len(files[name]):>10,}  {name}" for name in sorted(files))])


def install(environment: Environment, wheel: Path, folder: Path) -> Path:
    """Make a virtual environment of nothing else; its `ernie-rt`."""
    venv.create(folder, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    wanted = f"{wheel}[{environment.extra}]" if environment.extra else str(wheel)
    run(*pip, "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt", wanted)
    return folder / "bin" / "ernie-rt"


def refused(done: Done, extra: str) -> bool:
    """Whether it says what is missing, and how to get it."""
    return done.returncode != 0 and f"pip install 'ernie-rt[{extra}]'" in done.stderr


def tried(environment: Environment, command: Path, version: str, folder: Path) -> Iterator[str]:
    """What goes wrong there."""
    backend = environment.backend
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ERNIE_RT"))}
    variables |= {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}

    def wrong(holds: Callable[[Done], bool], *arguments: str) -> Iterator[str]:
        done = subprocess.run([command, *arguments], cwd=folder, env=variables, capture_output=True, text=True)
        if not holds(done) or "Traceback" in done.stderr:
            told = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
            yield f"{environment}: ernie-rt {' '.join(arguments)}: {told}"

    yield from wrong(lambda done: done.stdout == f"ernie-rt {version}\n", "--version")
    yield from wrong(lambda done: f"\n{backend} usable " in re.sub(" +", " ", done.stdout), "backends")
    yield from wrong(lambda done: done.stdout == ANSWER and f" · {backend} · " in done.stderr, "run", "demo", QUESTION)
    for arguments, extra in environment.refused.items():
        yield from wrong(partial(refused, extra=extra), *arguments)
    if environment.extra == "serve":
        yield from wrong(lambda done: done.returncode == 0, "serve", "--help")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for the archives (dist)")
    names = [environment.extra or "none" for environment in ENVIRONMENTS]
    parser.add_argument(
        "--try", dest="tried", nargs="*", choices=names, default=names, metavar="EXTRA",
        help=f"in which environments to try the wheel, of {', '.join(names)} (all of them)",
    )  # fmt: skip
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        time = committed(folder)
        tree, files = tree_files(folder / "tree"), unpacked(folder, time)
        wheel, sdist = pack(files, "any", options.out, time), build_sdist(folder / "tree", options.out, time)
        in_wheel, in_sdist = wheel_files(wheel), sdist_files(sdist)
        print(listing(wheel, in_wheel), listing(sdist, in_sdist), "", sep="\n\n")
        found = list(troubles(tree, in_wheel, in_sdist))
        again = folder / "again"
        with tarfile.open(sdist) as file:
            file.extractall(again, filter="data")
        next(again.iterdir()).rename(again / "tree")
        if pack(unpacked(again, time), "any", again, time).read_bytes() != wheel.read_bytes():
            found.append("the sdist builds another wheel")
        version = files.name.partition("-")[2]
        for environment in ENVIRONMENTS:
            if (environment.extra or "none") in options.tried:
                with TemporaryDirectory() as place:
                    command = install(environment, wheel, Path(place) / "venv")
                    wrong = list(tried(environment, command, version, Path(place)))
                print(f"{environment}: {'failed' if wrong else f'answered by {environment.backend}'}", flush=True)
                found += wrong
    if found:
        raise SystemExit("\n".join(found))
    print(f"\n{wheel}\n{sdist}")


if __name__ == "__main__":
    main()
