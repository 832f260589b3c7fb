"""The table of backends in the docs: it is what the stored results say, and they are of the suite as it is."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.conformance import Suite
from ernie_rt.discovery.installed import discover
from ernie_rt.host import PluginHost
from ernie_rt_onnx.library import kernels

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "backend_table.py"))


def reports() -> list[dict[str, Any]]:
    return TOOL["stored"](ROOT)


@pytest.mark.parametrize("path", TOOL["PAGES"])
def test_the_table_is_current(path: str) -> None:
    text = (ROOT / path).read_text()
    assert TOOL["page"](text, reports()) == text, "run `python tools/backend_table.py`"


def test_the_results_are_of_this_suite() -> None:
    host = PluginHost()
    names = [plugin.name for plugin in discover() if plugin.built_in]
    stored = {tuple(r["subject"][key] for key in ("backend", "device", "dtype", "storage")): r for r in reports()}
    assert stored.keys() >= {(name, "cpu", *each) for name in names for each in TOOL["settings"](host, name, "cpu")}
    for (name, device, dtype, storage), report in stored.items():
        assert report["ok"], (name, device, dtype, storage)
        checks = [str(check) for check in Suite(name, host, device, dtype, storage).checks()]
        assert [result["check"] for result in report["results"]] == checks, "run it with --run"


def test_a_backend_that_takes_blocks_is_examined_with_them() -> None:
    pytest.importorskip("onnxruntime")
    host = PluginHost()
    assert {storage for _, storage in TOOL["settings"](host, "eager", "cpu")} == {"plain"}
    found = [storage for _, storage in TOOL["settings"](host, "onnx", "cpu") if storage != "plain"]
    assert found == ["int8", "int4"] + ["int8/tiled", "int4/tiled"] * (kernels() is not None)


def test_the_table() -> None:
    report = {
        "subject": {"backend": "eager", "device": "cpu", "dtype": "float32", "storage": "plain"},
        "levels": {
            "L0": {"passed": 8, "failed": 0, "margin": None},
            "L1": {"passed": 40, "failed": 2, "skipped": 3, "margin": 1.5},
        },
        "ops": {"rope": "native", "moe": "decomposed"},
    }
    assert TOOL["table"]([report]).splitlines() == [
        "| backend | device | dtype | weights | L0 | L1 | nearest to a limit | native ops |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| **eager** | cpu | float32 | plain | 8 passed | 40 passed, 2 failed, 3 skipped | 150 % | 1 of 2 |",
    ]
