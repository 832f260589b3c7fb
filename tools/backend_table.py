"""Write the table of backends, in docs/backends.md, from the stored results of the conformance suite.

    python tools/backend_table.py               # write the table
    python tools/backend_table.py --run         # first run the suite on this machine: all built-in backends, devices,
                                                # dtypes
    python tools/backend_table.py --run onnx    # those of some backends alone

The results are `docs/conformance/BACKEND-DEVICE-DTYPE[-STORAGE].json`, what `ernie-rt conform BACKEND --json` prints.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from ernie_rt.choice import AUTOMATIC
from ernie_rt.conformance import Suite
from ernie_rt.contract import BlockQuantized, Target
from ernie_rt.discovery.installed import discover
from ernie_rt.host import PluginHost
from ernie_rt.weights.quantize import Layout
from ernie_rt.writing import write_atomic

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("docs/backends.md",)
BEGIN: Final = "<!-- from docs/conformance, by tools/backend_table.py -->"
END: Final = "<!-- end -->"


def stored(root: Path) -> list[Mapping[str, Any]]:
    """The stored reports, backend by backend."""
    reports = [json.loads(path.read_text()) for path in sorted((root / "docs/conformance").glob("*.json"))]
    return sorted(reports, key=lambda report: list(AUTOMATIC).index(report["subject"]["backend"]))


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


def examine(only: Collection[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Run the suite on each device of this machine that a built-in backend has, in each of its dtypes, and with
    quantised weights where it takes them; `only` these backends, if any are named."""
    host = PluginHost()
    names = [plugin.name for plugin in discover() if plugin.built_in]
    if unknown := set(only) - set(names):
        raise SystemExit(f"no built-in backend {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for name in only or names:
        for device in dict.fromkeys(d.partition(":")[0] for d in host.backend(name).devices()):
            for dtype, storage in settings(host, name, device):
                report = Suite(name, host, device=device, dtype=dtype, storage=storage).run()
                print(f"{name} {device} {dtype} {storage}\n{report.table()}")
                stored = [] if storage == "plain" else storage.split("/")
                yield "-".join([name, device, dtype, *stored]), report.to_json()


def settings(host: PluginHost, name: str, device: str) -> Iterator[tuple[str, str]]:
    """The dtypes of a backend with plain weights, and the first one with those of int8 and int4 that it takes."""
    dtypes = host.info(name).dtypes.get(device, ())
    yield from ((dtype, "plain") for dtype in dtypes)
    for dtype in dtypes[:1]:
        for layout in get_args(Layout):
            for bits in (8, 4):
                if host.backend(name).accepts(BlockQuantized(bits, 32, layout), Target((device,), dtype)):
                    yield dtype, f"int{bits}" + f"/{layout}" * (layout != "raw")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--run", nargs="*", metavar="BACKEND", help="run the suite first, on this machine: of all, or of these"
    )
    only = parser.parse_args().run
    if only is not None:
        for name, report in examine(only):
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
