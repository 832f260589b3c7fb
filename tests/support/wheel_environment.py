"""A virtual environment, below a folder, in which the wheel of this tree is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("ernie_rt", "backends", "plugins", "pyproject.toml", "README.md", "LICENSE")
SCRIPT = "#!{0}\nimport sys\nfrom {1} import {2} as main\nsys.exit(main())\n"


def wheel_environment(root: Path) -> dict[str, str]:
    """The variables of a virtual environment that has this project's wheel, and what it depends on from outside."""
    tree = root / "tree"
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    site = next((root / "venv" / "lib").glob("python*")) / "site-packages"
    # The libraries, and not the project: Python does not follow the .pth files of a folder that it adds by one.
    (site / "outside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, module, function in (("pip", "pip._internal.cli.main", "main"), ("pytest", "pytest", "console_main")):
        script = root / "venv" / "bin" / name
        script.write_text(SCRIPT.format(python, module, function))
        script.chmod(0o755)
    # Without an index and with the build tools that are installed, so that nothing is fetched.
    settings = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{root / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # One thread, which waits for nobody: conformance/test_threads.py has as many as there are by default.
    found = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONOPTIMIZE", "ERNIE_RT_PLUGINS")}
    found |= settings | {"VIRTUAL_ENV": str(root / "venv"), "PATH": path, "OMP_NUM_THREADS": "1"}
    # Nothing that is done there needs the library of operators, which takes most of the time: no compiler, no library.
    without = found | {"CC": "false", "CXX": "false"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--ignore-installed", "--no-deps", str(tree)]
    done = subprocess.run(install, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found
