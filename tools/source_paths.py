"""Name this tree's source roots in a .pth file of the environment that runs this.

An editable install finds them by code of its own, which type checkers and editors do not run.
"""

from __future__ import annotations

import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    roots = [(ROOT / root).resolve() for root in settings["packages"]["find"]["where"]]
    target = Path(sysconfig.get_path("purelib")) / "ernie-rt-sources.pth"
    target.write_text("".join(f"{root}\n" for root in roots), "utf-8")


if __name__ == "__main__":
    main()
