"""What importing costs: the package and `--help` stay light, and the lower layers need the standard library alone."""

from __future__ import annotations

import json
import os
import pydoc
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ernie_rt
import ernie_rt.contract
from support.commands import START

HEAVY = {
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "sentencepiece",
    "safetensors",
    "huggingface_hub",
    "transformers",
    "rich",
    "ml_dtypes",
}
TELL = (
    "import json, sys; known = set(sys.modules)\n{}\nprint(json.dumps([*sys.modules.keys() - known]), file=sys.stderr)"
)
HELP = """
sys.argv = ["ernie-rt", *{!r}]
from ernie_rt.cli import main
try:
    main()
except SystemExit as exit:
    assert exit.code == 0, exit.code
"""
LIGHT = """
import importlib, pkgutil
import ernie_rt, ernie_rt.graph, ernie_rt.modeling, ernie_rt.errors, ernie_rt.files
for package in (ernie_rt.graph, ernie_rt.modeling):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def imported(program: str) -> set[str]:
    """The modules that a program imports in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", TELL.format(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


@pytest.mark.parametrize(
    "program",
    [
        "import ernie_rt; ernie_rt.__version__, ernie_rt.__all__",
        *(HELP.format(args) for args in (["--help"], ["--version"], ["run", "--help"], ["graph", "-h"])),
    ],
    ids=["import", "help", "version", "run help", "graph help"],
)
def test_light(program: str) -> None:
    found = {name.partition(".")[0] for name in imported(program)}
    assert "ernie_rt" in found
    assert not found & HEAVY


def test_graphs_and_configs_need_the_standard_library_alone() -> None:
    found = imported(LIGHT)
    assert {"ernie_rt.graph.legalize", "ernie_rt.modeling.families", "ernie_rt.files"} <= found
    assert {name.partition(".")[0] for name in found} - sys.stdlib_module_names == {"ernie_rt"}


def test_listing_backends_imports_none_of_them() -> None:
    found = {name.partition(".")[0] for name in imported(HELP.format(["backends"]))}
    assert not found & {"torch", "onnx", "onnxruntime", "transformers", "rich", "huggingface_hub"}


def test_help_is_quick() -> None:
    """Beside the time that importing typer takes in the same moments: the clock on the wall, and the processor's too,
    also tell what else the machine does.
    """
    ours, typers = [], []
    for _ in range(5):
        ours.append(cpu_seconds([*START, "--help"]))
        typers.append(cpu_seconds([sys.executable, "-c", "import typer"]))
    assert min(ours) < 4 * min(typers), (ours, typers)


def test_help_makes_no_command() -> None:
    """Of a group of commands it needs what its Typer says of it; reading parameters would take most of the time."""
    watched = "from ernie_rt.cli import lazy; make = lazy._made\n" + (
        "lazy._made = lambda name, module: print(name, file=sys.stderr) or make(name, module)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + watched + HELP.format(["--help"])], capture_output=True, text=True
    )
    assert {*done.stderr.split()} == {"backends", "cache", "bench"}, done


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "80"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_contracts_name_each_backend_and_plugin() -> None:
    root = Path(__file__).parents[1]
    rules = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    ours = {path.parent.name for kind in ("backends", "plugins") for path in (root / kind).glob("*/__init__.py")}
    ours.remove("ernie_rt_template")
    assert set(rules["root_packages"]) == {"ernie_rt", *ours}
    assert ours <= set(rules["contracts"][0]["forbidden_modules"])


def test_what_is_public_is_offered() -> None:
    """By `dir`, tab completion and `help`, of which the first two import nothing."""
    names = "import ernie_rt; assert {*ernie_rt.__all__, '__version__'} <= set(dir(ernie_rt)), dir(ernie_rt)"
    assert not {name.partition(".")[0] for name in imported(names)} & HEAVY
    page = pydoc.render_doc(ernie_rt, renderer=pydoc.plaintext)
    assert "class Model(" in page and "load(ref: " in page and "class ErnieRtError(" in page


def test_public_names_resolve() -> None:
    assert all(getattr(ernie_rt, name).__module__.startswith("ernie_rt.") for name in ernie_rt.__all__)
    assert all(hasattr(ernie_rt.contract, name) for name in ernie_rt.contract.__all__)
    assert not {"PLUGIN_API", "BackendInfo", "hookimpl"} & set(dir(ernie_rt.contract)), "their door is ernie_rt.hooks"
    assert ernie_rt.contract.__all__ == sorted(ernie_rt.contract.__all__, key=lambda name: (not name.isupper(), name))
    with pytest.raises(AttributeError, match="'nonsense'"):
        ernie_rt.nonsense  # noqa: B018
