"""Environments to be spoilt: all that is installed here, by hard links, with ernie-rt as pip installs it, and wheels of
what is in it, so that what was spoilt can be installed anew without an index."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPT = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
SCRIPTS = {"pip": "pip._internal.cli.main", "ernie-rt": "ernie_rt.__main__"}
LEFT_OUT = ("__editable__*", "ernie_rt-*.dist-info", "ernie-rt-sources.pth", "__pycache__")
LARGE = ("_cuda", "_tensorrt")
"""What the names of libraries hold that a wheel for the CPU has not."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, its packages, and a folder of wheels."""

    root: Path
    site: Path
    wheels: Path

    def run(self, *commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Lines for one shell, in this environment, without an index; whoever asks is told yes."""
        found = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith(("XDG_", "HF_"))}
        found["PATH"] = f"{self.root / 'venv' / 'bin'}{os.pathsep}{found['PATH']}"
        found |= {"VIRTUAL_ENV": str(self.root / "venv"), "HOME": str(self.root), "PIP_NO_INDEX": "1"}
        found |= {"PIP_FIND_LINKS": str(self.wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        shell = ["sh", "-c", "; ".join(commands)]
        return subprocess.run(shell, input="y\n" * 9, env=found | variables, capture_output=True, text=True)

    def doctor(self, *before: str, backend: str = "reference", **variables: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit code and the findings of `ernie-rt doctor`, after these lines in the same shell."""
        lines = [f"{{ {line}; }} >&2" for line in before]
        ran = self.run(*lines, f"ernie-rt doctor --json --backend {backend}", **variables)
        assert ran.stdout.startswith("{"), ran.stderr
        return ran.returncode, json.loads(ran.stdout)["findings"]

    def distributions(self) -> Iterator[Distribution]:
        yield from PathDistribution.discover(path=[str(self.site)])

    def distribution(self, name: str) -> Distribution:
        (found,) = (each for each in self.distributions() if canonicalize_name(each.name) == name)
        return found


def environment(root: Path) -> Environment:
    """One in a folder, which is that of its user's home too."""
    venv.create(root / "venv", with_pip=False)
    site = next((root / "venv" / "lib").glob("python*")) / "site-packages"
    installed = Path(sysconfig.get_path("purelib"))
    shutil.copytree(
        installed, site, copy_function=link_or_copy, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True
    )
    python = root / "venv" / "bin" / "python"
    for name, module in SCRIPTS.items():
        script = python.parent / name
        script.write_text(SCRIPT.format(python=python, module=module))
        script.chmod(0o755)
    wheels = root / "wheels"
    wheels.mkdir()
    made = Environment(root, site, wheels)
    _wheel(made, "ernie-rt", _own_files())
    done = made.run("pip install --quiet --no-deps ernie-rt")
    assert done.returncode == 0, done.stderr
    return made


def wheel_of(made: Environment, name: str, called: str | None = None) -> None:
    """A wheel of a distribution in an environment, perhaps under another name, in its folder of wheels."""
    found = made.distribution(name)
    files = ((str(file), made.site / str(file)) for file in found.files or () if ".." not in str(file))
    kept = [
        (at, path)
        for at, path in files
        if path.exists() and ".dist-info/" not in at and "__pycache__" not in at and not any(e in at for e in LARGE)
    ]
    _wheel(made, called or name, kept, found)


def _own_files() -> Iterator[tuple[str, Path]]:
    """The files of ernie-rt's wheel: of its packages here, the library of operators among them."""
    for source in (ROOT, ROOT / "backends", ROOT / "plugins"):
        for package in sorted(source.glob("ernie_rt*")):
            for path in sorted(package.rglob("*")):
                at = path.relative_to(source)
                if path.is_file() and "__pycache__" not in at.parts and at.parts[:2] != ("ernie_rt_onnx", "ops"):
                    yield str(at), path


def _wheel(made: Environment, name: str, files: Iterable[tuple[str, Path]], found: Distribution | None = None) -> None:
    """Write a wheel of these files, with the metadata of a distribution: the one of this name, or another one."""
    found = found or distribution(name)
    stem = f"{name.replace('-', '_')}-{found.version}"
    metadata = (found.read_text("METADATA") or "").replace(f"Name: {found.name}\n", f"Name: {name}\n", 1)
    written = {f"{stem}.dist-info/METADATA": metadata.encode()}
    written[f"{stem}.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if points := found.read_text("entry_points.txt"):
        written[f"{stem}.dist-info/entry_points.txt"] = points.encode()
    record = io.StringIO()
    lines = csv.writer(record)
    with zipfile.ZipFile(made.wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
        for at, path in files:
            wheel.write(path, at)
            lines.writerow((at, _digest(path.read_bytes()), path.stat().st_size))
        for at, content in written.items():
            wheel.writestr(at, content)
            lines.writerow((at, _digest(content), len(content)))
        lines.writerow((f"{stem}.dist-info/RECORD", "", ""))
        wheel.writestr(f"{stem}.dist-info/RECORD", record.getvalue())


def _digest(content: bytes) -> str:
    return f"sha256={urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')}"


def link_or_copy(source: str, destination: str) -> None:
    """Another name for the same file, or, on another file system, a copy."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
