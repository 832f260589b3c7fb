"""What libraries in C and C++ open, Python does not hear of: the system does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OPENED = re.compile(r'(?:open|openat|openat2)\((?:[^"]*, )?"([^"]*)".*?(O_RDONLY|O_RDWR|O_WRONLY)')
FORBIDDEN = re.compile(
    r".*/secret|/etc/shadow|/dev/(zero|tty|null/.*)|/proc/(self|\d+)/(mem|fd/\d+)|.*(evil|custom_ops).*"
)
"""What the files of those tests lead to."""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_opened_that_a_graph_leads_to(tmp_path: Path) -> None:
    """Every place of external data once more, under strace."""
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", log, "-e", "trace=open,openat,openat2", sys.executable, "-m", "pytest", "-q"]
    tests = [Path(__file__).with_name("test_external_data.py"), "-k", "places", f"--basetemp={tmp_path / 'tests'}"]
    traced = subprocess.run([*command, *tests], capture_output=True, text=True, check=False)
    if "ptrace" in traced.stderr:
        pytest.skip(f"nothing may be traced here: {traced.stderr[:100]}")
    assert traced.returncode == 0, traced.stdout[-2000:]
    found = [match.groups() for line in log.read_text(errors="replace").splitlines() if (match := OPENED.search(line))]
    assert len(found) > 1000
    read = {path for path, mode in found if mode != "O_WRONLY"}
    assert not {path for path in read if FORBIDDEN.fullmatch(path)}
