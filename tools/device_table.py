"""Write the table of devices that `ernie-rt plan` knows, in docs/devices.md, from ernie_rt/planning/devices.json.

python tools/device_table.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Final

from ernie_rt.planning.device import GIB, Device, known_devices
from ernie_rt.writing import write_atomic

PAGE: Final = Path(__file__).parents[1] / "docs/devices.md"
BEGIN: Final = "<!-- from ernie_rt/planning/devices.json, by tools/device_table.py -->"
END: Final = "<!-- end -->"
PEAKS: Final = ("float32", "bfloat16", "float16", "float8", "int8")


def table(devices: Iterable[Device]) -> str:
    """A row for each device; those that differ in memory alone, as Macs do, share one."""
    rows = [["device", "memory, GiB", "GB/s", *(f"{dtype}, T/s" for dtype in PEAKS), "source"]]
    rows.append(["---"] * len(rows[0]))
    for (name, _), group in groupby(devices, lambda each: (_chip(each), each.bandwidth)):
        alike = list(group)
        first = alike[0]
        rows.append(
            [
                name,
                ", ".join(f"{each.memory_bytes / GIB:.4g}" for each in alike),
                f"{first.bandwidth / 1e9:,.4g}" if first.bandwidth < 1e12 else f"{first.bandwidth / 1e9:,.0f}",
                *(f"{first.flops[dtype] / 1e12:,.4g}" if dtype in first.flops else "" for dtype in PEAKS),
                re.sub(r"(https://[^\s;,)]+)", r"<\1>", first.source),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _chip(device: Device) -> str:
    return re.sub(r" \d+GB$", "", device.name) if device.kind == "mps" else device.name


def page(text: str) -> str:
    """The page with the table between its marks."""
    found, count = re.subn(
        f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})",
        lambda _: f"{table(known_devices())}\n",
        text,
        flags=re.DOTALL,
    )
    assert count == 1, f"{count} places for the table"
    return found


def main() -> None:
    text = PAGE.read_text("utf-8")
    with write_atomic(PAGE) as file:
        file.write(page(text).encode())


if __name__ == "__main__":
    main()
