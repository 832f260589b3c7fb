"""What the command line leaves behind, and whom it asks: its own files, and nobody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

OURS = (".cache/ernie-rt/", ".local/state/ernie-rt/")
DRIVER = """
import json, subprocess, sys, time
from pathlib import Path

for arguments, text, idle in json.loads(sys.argv[1]):
    child = subprocess.Popen(
        [sys.executable, "-m", "ernie_rt", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    child.stdin.write(text)
    child.stdin.flush()
    time.sleep(idle)
    out, _ = child.communicate()
    assert child.returncode == 0, (arguments, out)
names, counts = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
print(json.dumps(dict(zip(names[1:], map(int, counts[1:])))))
"""


@cache
def apart() -> list[str]:
    """What begins a command in a network of its own, without a way out, whose counters tell of every packet that
    somebody wanted to send: Python's own and native code's alike. Empty where the system grants none.

    It does not tell of names that a resolver's socket or the file of hosts answers, nor of what goes to this machine.
    """
    begin = ["unshare", "--map-root-user", "--net"]
    try:
        able = subprocess.run([*begin, "true"], capture_output=True).returncode == 0
    except OSError:
        able = False
    return begin if able else []


def run(commands: list[tuple[list[str], str, float]], home: Path) -> None:
    """The commands under a new home, and their traces: files of ours alone, and not a packet."""
    for name in ("home", "tmp"):
        (home / name).mkdir()
    dropped = ("XDG_", "HF_", "ORT_", "ERNIE_RT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {"HOME": str(home / "home"), "TMPDIR": str(home / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*apart(), sys.executable, "-c", DRIVER, json.dumps(commands)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [path.relative_to(home / "home").as_posix() for path in (home / "home").rglob("*") if path.is_file()]
    assert left and [name for name in left if not name.startswith(OURS)] == []
    assert list((home / "tmp").iterdir()) == []
    if apart():
        counts = json.loads(done.stdout)
        assert (counts["OutNoRoutes"], counts["OutRequests"], counts["OutDiscards"]) == (0, 0, 0)


QUESTION = "How many grams are in 5 kilograms?"
ASKED = (["run", "demo", QUESTION, "--backend", "onnx", "--weights", "int8"], "", 0.0)


def test_nothing_is_left_but_ours_and_nobody_is_asked(tmp_path: Path) -> None:
    run([ASKED], tmp_path)


@pytest.mark.long
def test_by_any_command(tmp_path: Path) -> None:
    export = (["export", "onnx", "demo", "out", "--verify"], "", 0.0)
    run([ASKED, export, (["verify", "out", "--numbers"], "", 0.0), (["chat", "demo"], QUESTION, 0.0)], tmp_path)


@pytest.mark.long
def test_nor_while_a_conversation_idles(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry looks for its maker's host nine seconds after the import."""
    run([(["chat", "demo", "--backend", "onnx"], "Hello\n", 15.0)], tmp_path)


@pytest.mark.skipif(not apart(), reason="no network of its own for a process")
def test_a_lookup_is_seen() -> None:
    look = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('ernie-rt.example', 443)\n"
    found = subprocess.run([*apart(), sys.executable, "-c", look + DRIVER, "[]"], capture_output=True, text=True)
    assert json.loads(found.stdout)["OutNoRoutes"] > 0


def test_the_hub_is_told_nothing_beside_what_is_fetched() -> None:
    code = (
        "from ernie_rt.weights.hub import _cached\n"
        "_cached('nobody/nothing', None)\n"
        "from huggingface_hub import constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


ROOT = Path(__file__).parents[1]
RECIPES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [path for name in ("tools", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))]


def test_recipes_and_programs_turn_it_off_before_the_import() -> None:
    blocks = [block for path in RECIPES for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)]
    found = 0
    for text in (*blocks, *(path.read_text() for path in PROGRAMS)):
        loaded = re.search(r"^\s*(?:import|from) onnxruntime", text, re.MULTILINE)
        if loaded is not None:
            found += 1
            assert "ORT_DISABLE_TELEMETRY" in text[: loaded.start()], text
    assert found
