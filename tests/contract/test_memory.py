from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ernie_rt.contract import MemoryReport, memory
from ernie_rt.contract.memory import available_memory, check_memory
from ernie_rt.errors import CapacityError

GIB = 1 << 30


VERSIONS = {
    1: ("4:memory:{path}", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("0::{path}", "", "memory.max", "memory.current", "inactive_file"),
}


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups are looked for, on a system with 64 GiB to be had."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {64 * GIB // 1024} kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    return tmp_path / "groups"


def limit(groups: Path, version: int, own: str, limited: str, limit: str) -> None:
    """This process is in the group `own`, and the group `limited` has a limit."""
    line, folder, limit_name, used_name, cache_name = VERSIONS[version]
    (groups.parent / "cgroup").write_text(f"9:cpu:/\n{line.format(path=own)}\n")
    group = groups / folder / limited.lstrip("/")
    group.mkdir(parents=True, exist_ok=True)
    (group / limit_name).write_text(f"{limit}\n")
    (group / used_name).write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon {GIB}\n{cache_name} {2 * GIB}\nactive_file 0\n")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("own", "limited"),
    [
        pytest.param("/", "/", id="a container that sees itself as the root"),
        pytest.param("/docker/1f", "/", id="a container that sees its name outside, and its own files"),
        pytest.param("/user.slice/run-7.scope", "/user.slice/run-7.scope", id="a scope of systemd"),
        pytest.param("/user.slice/run-7.scope", "/user.slice", id="a limit of the group around it"),
    ],
)
def test_a_control_group_has_what_its_limit_leaves_and_the_cache_it_can_drop(
    groups: Path, version: int, own: str, limited: str
) -> None:
    limit(groups, version, own, limited, str(4 * GIB))
    assert available_memory() == 3 * GIB
    limit(groups, version, own, limited, "max" if version == 2 else str((1 << 63) - 4096))
    assert available_memory() == 64 * GIB


def test_a_system_without_control_groups_has_what_it_says(groups: Path) -> None:
    assert available_memory() == 64 * GIB
    (groups.parent / "cgroup").write_text("0::/../..\n")
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


def test_the_workspace_counts_against_what_is_free_and_not_against_a_limit() -> None:
    report = MemoryReport(GIB, GIB, workspace_bytes=GIB, available=3 * GIB)
    check_memory(report, 2 * GIB)
    with pytest.raises(CapacityError, match=r"memory that is free.* beside 1\.0 GiB of workspace"):
        check_memory(replace(report, available=3 * GIB - 1), None)
