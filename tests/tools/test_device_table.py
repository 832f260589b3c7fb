"""The table of devices in the docs is what the data say."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "device_table.py"))


def test_the_table_is_current() -> None:
    text = (ROOT / "docs/devices.md").read_text("utf-8")
    assert TOOL["page"](text) == text, "run `python tools/device_table.py`"


def test_macs_that_differ_in_memory_share_a_row() -> None:
    rows = [row.split(" | ") for row in TOOL["table"](TOOL["known_devices"]()).splitlines()]
    macs = {(row[0], row[1]): row[2] for row in rows if row[0].startswith("| Apple M4")}
    assert macs[("| Apple M4 Max", "36")] == "410"
    assert macs[("| Apple M4 Max", "48, 64, 128")] == "546"
