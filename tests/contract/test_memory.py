from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ernie_rt.contract import MemoryReport, memory
from ernie_rt.contract.memory import available_memory, check_memory
from ernie_rt.errors import CapacityError

GIB = 1 << 30


def container(folder: Path, limit: str) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{3 * GIB}\n")
    (folder / "memory.stat").write_text(f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 0\n")
    return folder


def test_a_container_has_what_its_limit_leaves_and_the_cache_it_can_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {64 * GIB // 1024} kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", container(tmp_path, str(4 * GIB)))
    assert available_memory() == 3 * GIB
    monkeypatch.setattr(memory, "CGROUP", container(tmp_path, "max"))
    assert available_memory() == 64 * GIB
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "nowhere")
    assert available_memory() == 64 * GIB


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    report = MemoryReport(weight_bytes=3 * GIB, cache_bytes=GIB)
    check_memory(replace(report, available=4 * GIB), 4 * GIB)
    with pytest.raises(
        CapacityError, match=r"memory limit; expected at most 3\.9 GiB; found 3\.0 GiB of weights and 1\.0"
    ):
        check_memory(report, 4 * GIB - (GIB // 10))
    with pytest.raises(CapacityError, match="the memory that is free"):
        check_memory(replace(report, available=GIB), None)
