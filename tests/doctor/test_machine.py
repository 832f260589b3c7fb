"""Cores, memory and huge pages: faults planted in what the system says, and gone once its fix is followed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ernie_rt.contract import Finding, memory
from ernie_rt.contract.planner import Device
from ernie_rt.doctor import machine
from ernie_rt.doctor.report import Fact

GIB = 1 << 30
VERSIONS = {
    1: ("4:cpu,cpuacct:/docker/1f\n9:memory:/docker/1f", "cpu/docker/1f", "memory/docker/1f", "memory.limit_in_bytes"),
    2: ("0::/user.slice/run-7.scope", "user.slice/run-7.scope", "user.slice", "memory.max"),
}


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores and 64 GiB, in no control group, with huge pages for whoever asks."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "HUGE_PAGES", tmp_path / "huge pages")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 8)
    for variable in machine.THREADS:
        monkeypatch.delenv(variable, raising=False)
    meminfo(tmp_path)
    (tmp_path / "huge pages").write_text("always [madvise] never\n")
    return tmp_path


def meminfo(system: Path, free: int = 40 * GIB, swap: int = 0) -> None:
    lines = {"MemTotal": 64 * GIB, "MemAvailable": free, "SwapTotal": 8 * GIB, "SwapFree": 8 * GIB - swap}
    (system / "meminfo").write_text("".join(f"{name}: {value // 1024} kB\n" for name, value in lines.items()))


def group(system: Path, version: int, quota: str = "max 100000", limit: str = "max") -> None:
    lines, cpu, mem, name = VERSIONS[version]
    (system / "cgroup").write_text(f"{lines}\n")
    for folder in (cpu, mem):
        (system / "groups" / folder).mkdir(parents=True, exist_ok=True)
    if version == 2:
        (system / "groups" / cpu / "cpu.max").write_text(f"{quota}\n")
    else:
        for part, file in zip(quota.replace("max", "-1").split(), ("quota", "period"), strict=True):
            (system / "groups" / cpu / f"cpu.cfs_{file}_us").write_text(f"{part}\n")
    (system / "groups" / mem / name).write_text(f"{limit}\n")


def found(check: Callable[[], Iterable[Fact | Finding]]) -> list[Finding]:
    return [each for each in check() if isinstance(each, Finding)]


def facts(check: Callable[[], Iterable[Fact | Finding]]) -> dict[str, str]:
    return {each.name: each.text for each in check() if isinstance(each, Fact)}


def test_a_machine_without_faults() -> None:
    assert not [*found(machine.threads), *found(machine.room), *found(machine.huge_pages)]
    assert facts(machine.threads) == {"cores": "8 cores"}
    assert facts(machine.room) == {"memory": "64.0 GiB, of which 40.0 GiB can be had"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_quota_of_time_and_more_cores_than_that(version: int, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(system, version, "250000 100000")
    (finding,) = found(machine.threads)
    assert finding.severity == "slow" and "the time of 2.5 cores, and 8 are to be seen" in finding.seen
    assert finding.command == "taskset --all-tasks --cpu-list --pid 0-2 $$"
    assert facts(machine.threads)["cores"] == "8 cores, for the time of 2.5"
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)  # what the command makes of it
    monkeypatch.setattr(machine, "allowed_cores", lambda: 3)
    assert not found(machine.threads)
    monkeypatch.undo()
    group(system, version)
    assert machine.cpu_quota() is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_limit_of_memory(version: int, system: Path) -> None:
    group(system, version, limit=str(8 * GIB))
    (finding,) = found(machine.room)
    assert (finding.severity, finding.command) == ("remark", "") and "--memory" in finding.advice
    assert finding.seen == "a control group allows 8.0 GiB of this machine's 64.0 GiB"
    group(system, version, limit="max" if version == 2 else str((1 << 63) - 4096))
    assert not found(machine.room)


@pytest.mark.parametrize(
    ("features", "lacking"),
    [(set(), "AVX2"), ({"avx2"}, "int8 dot products"), ({"avx2", "avx_vnni"}, ""), ({"avx2", "avx512_vnni"}, "")],
)
def test_a_processor_that_lacks_instructions(features: set[str], lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("Old one", "cpu", GIB, 30e9, {}, "made up", frozenset(features))
    monkeypatch.setattr(machine, "this_machine", lambda: device)
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    seen = [each.seen for each in found(machine.processor)]
    assert len(seen) == bool(lacking) and all(f"no {lacking}" in each for each in seen)
    assert facts(machine.processor)["memory speed"] == "30.0 GB/s, read by all cores together"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not found(machine.processor)


def test_memory_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("Old one", "cpu", GIB, 4e9, {}, "made up", frozenset({"avx_vnni"}))
    monkeypatch.setattr(machine, "this_machine", lambda: device)
    (finding,) = found(machine.processor)
    assert finding.severity == "slow" and "at most 2.0 tokens a second" in finding.costs


def test_a_quota_of_one_core(system: Path) -> None:
    group(system, 2, "50000 100000")
    assert [each.command for each in found(machine.threads)] == ["taskset --all-tasks --cpu-list --pid 0 $$"]


@pytest.mark.parametrize("variable", machine.THREADS)
@pytest.mark.parametrize(("value", "costs"), [("1", "use 1 of 8 cores"), ("64,4", "64 threads on 8 cores")])
def test_threads_that_a_variable_bounds(variable: str, value: str, costs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    (finding,) = found(machine.threads)
    assert finding.severity == "slow" and costs in finding.costs
    shell = subprocess.run(["sh", "-c", f'{finding.command}; echo "${variable}"'], capture_output=True, text=True)
    assert shell.stdout == "\n"
    monkeypatch.setenv(variable, "8")
    assert not found(machine.threads)


def test_a_shell_that_is_bound_to_some_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    (finding,) = found(machine.threads)
    assert finding.seen == "this shell is bound to 2 of 8 cores (its affinity)"
    monkeypatch.setattr(machine, "allowed_cores", lambda: 2)  # as in a container, where nothing can be done from within
    assert not found(machine.threads)
    assert facts(machine.threads) == {"cores": "8 cores, of which this process may use 2"}


def test_little_memory_and_much_of_it_swapped_out(system: Path) -> None:
    meminfo(system, free=GIB, swap=2 * GIB)
    little, swapped = found(machine.room)
    assert (little.severity, little.seen) == ("slow", "1.0 GiB of memory can be had")
    assert (swapped.severity, swapped.seen) == ("remark", "2.0 GiB of memory are swapped out")


def test_huge_pages_that_are_off(system: Path) -> None:
    pages = system / "huge pages"
    pages.write_text("always madvise [never]\n")
    (finding,) = found(machine.huge_pages)
    command = finding.command.replace("sudo ", "").replace(str(pages), f"'{pages}'")  # its name has no blanks elsewhere
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    assert not found(machine.huge_pages)


def test_a_bound_of_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "address_space", lambda: 4 * GIB)
    (finding,) = found(machine.room)
    assert finding.command == "ulimit -v unlimited" and "4.0 GiB" in finding.seen


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="nothing binds to a core here")
def test_what_may_be_used_is_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """And left as it is."""
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.usable_cores() == 1 and machine.allowed_cores() >= len(before)
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
