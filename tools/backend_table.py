"""Write the table of backends, in README.md and docs/backends.md, from the stored results of the conformance suite.

    python tools/backend_table.py          # write the table
    python tools/backend_table.py --run    # first run the suite on this machine: all built-in backends, devices, dtypes

The results are `docs/conformance/BACKEND-DEVICE-DTYPE[-STORAGE].json`, what `ernie-rt conform BACKEND --json` prints.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ernie_rt.backend import Blocks, Target
from ernie_rt.choice import PREFERENCE
from ernie_rt.conformance import Suite
from ernie_rt.files import write_atomic
from ernie_rt.host import PluginHost
from ernie_rt.plugin.discovery import discover

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("README.md", "docs/backends.md")
BEGIN: Final = "<!-- from docs/conformance, by tools/backend_table.py -->"
END: Final = "<!-- end -->"


def stored(root: Path) -> list[Mapping[str, Any]]:
    """The stored reports, the backend that `auto` prefers first."""
    reports = [json.loads(path.read_text()) for path in sorted((root / "docs/conformance").glob("*.json"))]
    return sorted(reports, key=lambda report: PREFERENCE.index(report["subject"]["backend"]))


def table(reports: list[Mapping[str, Any]]) -> str:
    """A row for each report: what became of the checks of each level, and the figure nearest to its limit."""
    levels = list(dict.fromkeys(level for report in reports for level in report["levels"]))
    rows = [["backend", "device", "dtype", "weights", *levels, "nearest to a limit", "native ops"]]
    rows.append(["---"] * len(rows[0]))
    for report in reports:
        subject = report["subject"]
        margins = [margin for level in report["levels"].values() if (margin := level["margin"]) is not None]
        routes = list(report["ops"].values())
        rows.append(
            [
                f"**{subject['backend']}**", subject["device"], subject["dtype"], subject["storage"],
                *(_passed(report["levels"].get(level, {})) for level in levels),
                f"{100 * max(margins):.0f} %" if margins else "",
                f"{routes.count('native')} of {len(routes)}",
            ]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _passed(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if status != "margin" and count)


def page(text: str, reports: list[Mapping[str, Any]]) -> str:
    """A page with the table between its marks."""
    found, count = re.subn(
        f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", lambda _: f"{table(reports)}\n", text, flags=re.DOTALL
    )
    assert count == 1, f"{count} places for the table"
    return found


def examine() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Run the suite on each device of this machine that a built-in backend has, in each of its dtypes, and with
    quantised weights where it takes them."""
    host = PluginHost()
    for name in (plugin.name for plugin in discover() if plugin.built_in):
        for device in dict.fromkeys(d.partition(":")[0] for d in host.backend(name).devices()):
            for dtype, storage in settings(host, name, device):
                report = Suite(name, host, device=device, dtype=dtype, storage=storage).run()
                print(f"{name} {device} {dtype} {storage}\n{report.table()}")
                yield "-".join([name, device, dtype] + [storage] * (storage != "plain")), report.to_json()


def settings(host: PluginHost, name: str, device: str) -> Iterator[tuple[str, str]]:
    """The dtypes of a backend with plain weights, and the first one with int8 if it takes that."""
    dtypes = host.info(name).dtypes.get(device, ())
    yield from ((dtype, "plain") for dtype in dtypes)
    for dtype in dtypes[:1]:
        if host.backend(name).accepts(Blocks(8, 32), Target((device,), dtype)):
            yield dtype, "int8"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="run the suite first, on this machine")
    if parser.parse_args().run:
        for name, report in examine():
            if not report["ok"]:
                raise SystemExit(f"{name}: not stored, since something failed, or nothing passed in a level")
            with write_atomic(ROOT / "docs/conformance" / f"{name}.json") as file:
                file.write(json.dumps(report, indent=1).encode() + b"\n")
    reports = stored(ROOT)
    for path in PAGES:
        text = (ROOT / path).read_text()
        with write_atomic(ROOT / path) as file:
            file.write(page(text, reports).encode())


if __name__ == "__main__":
    main()
