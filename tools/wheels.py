"""Build the wheels of the commit that is checked out: one with the library of operators inside for each of TARGETS, and
one without it for every other platform.

    pip install wheel ziglang
    python tools/wheels.py           # into dist/

Zig is a C++ compiler (Clang) that knows the symbols of each version of glibc and links a C++ library of its own into
what it makes, so one machine makes them all, whatever is installed there. The library is no Python module: one wheel is
for all versions of Python. The same commit, built by the same versions of these tools, gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = {
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
}
"""Tags of platforms, and what Zig calls them."""
EXPORTS: Final = "{ global: RegisterCustomOps; ernie_rt_*; local: *; };"
"""What others see of the library, in the linker's words: not the C++ library inside, lest another one calls it."""


def run(*command: str | Path, **environment: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | environment)


def committed(folder: Path) -> str:
    """Put the tree of the commit into a folder, without what lies beside it in the checkout; its time."""
    run("git", "-C", ROOT, "archive", "--output", folder / "tree.tar", "HEAD")
    with tarfile.open(folder / "tree.tar") as file:
        file.extractall(folder / "tree", filter="data")
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(log, check=True, capture_output=True, text=True).stdout.strip()


def unpacked(folder: Path, time: str) -> Path:
    """The files of a wheel of `folder`/tree, without the library: `false` is a compiler that cannot build it."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", folder, folder / "tree", CC="false", CXX="false", SOURCE_DATE_EPOCH=time)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "wheel", "unpack", "--dest", folder / "unpacked", wheel)
    (found,) = (folder / "unpacked").iterdir()
    return found


def build_library(tree: Path, extension: Mapping[str, Any], target: str, path: Path) -> None:
    exports = path.with_name("exports")
    exports.write_text(EXPORTS)
    compiler = (sys.executable, "-m", "ziglang", "c++", "-target", target, *extension["extra-compile-args"])
    sources = [tree / source for source in extension["sources"]]
    run(*compiler, "-shared", "-fPIC", "-s", f"-Wl,--version-script={exports}", *sources, "-o", path)
    exports.unlink()


def pack(files: Path, platform: str, out: Path, time: str) -> Path:
    """Make a wheel of these files, for a platform."""
    (path,) = files.glob("*.dist-info/WHEEL")
    text = re.sub(r"(?m)^Tag: .*$", f"Tag: py3-none-{platform}", path.read_text())
    pure = "true" if platform == "any" else "false"
    path.write_text(re.sub(r"(?m)^Root-Is-Purelib: .*$", f"Root-Is-Purelib: {pure}", text))
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", out, files, SOURCE_DATE_EPOCH=time)
    return out / f"{files.name}-py3-none-{platform}.whl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for the wheels (dist)")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        time = committed(folder)
        tree, files = folder / "tree", unpacked(folder, time)
        pack(files, "any", out, time)
        (extension,) = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
        library = files / (extension["name"].replace(".", "/") + ".so")
        for platform, target in TARGETS.items():
            build_library(tree, extension, target, library)
            pack(files, platform, out, time)


if __name__ == "__main__":
    main()
