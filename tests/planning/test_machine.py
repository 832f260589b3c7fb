"""This machine: what its system says, read as each system says it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from ernie_rt.contract import memory
from ernie_rt.planning import machine, measuring
from ernie_rt.planning.device import GIB, MIB
from ernie_rt.planning.machine import cache_bytes, this_cpu, this_machine

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: INTEL(R) XEON(R) PLATINUM 8592+
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8 avx_vnni

processor\t: 1
model name\t: INTEL(R) XEON(R) PLATINUM 8592+
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8 avx_vnni
"""
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes asimdhp asimddp sve i8mm bf16
CPU part\t: 0xd4f
"""
MAC = {
    "machdep.cpu.brand_string": "Apple M4 Pro",
    "hw.memsize": str(48 * GIB),
    "hw.optional.neon": "1",
    "hw.optional.arm.FEAT_DotProd": "1",
    "hw.optional.arm.FEAT_I8MM": "1",
    "hw.optional.avx2_0": "0",
}


def test_the_names_of_features_on_linux(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(X86)
    name, features = machine._linux(file)
    assert name == "INTEL(R) XEON(R) PLATINUM 8592+"
    assert set(features) == {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx"}
    file.write_text(ARM)
    assert machine._linux(file) == ("", ["neon", "dotprod", "i8mm", "bf16"])
    assert machine._linux(tmp_path / "absent") == ("", ())


def test_a_mac_by_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(command: list[str]) -> str:
        program, *keys = command
        assert program == "sysctl"
        return "".join(f"{key}: {MAC[key]}\n" for key in keys) if MAC.keys() >= set(keys) else ""

    monkeypatch.setattr(machine, "told", sysctl)
    assert machine._darwin() == ("Apple M4 Pro", ["neon", "dotprod", "i8mm"], 48 * GIB)
    monkeypatch.setattr(machine, "told", lambda command: "")
    assert machine._darwin() == ("", [], 0)


def test_windows_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        @staticmethod
        def GlobalMemoryStatusEx(status: object) -> int:
            found = status._obj  # type: ignore[attr-defined]
            assert found.length == ctypes.sizeof(found) == 64
            found.total = 32 * GIB
            return 1

        @staticmethod
        def IsProcessorFeaturePresent(number: int) -> int:
            return number in (10, 40)

    monkeypatch.setattr(machine.platform, "processor", lambda: "Intel64 Family 6")
    assert machine._windows(Kernel()) == ("Intel64 Family 6", ["avx2"], 32 * GIB)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says")
def test_this_cpu() -> None:
    cpu = this_cpu()
    assert cpu.name
    assert 1 <= cpu.cores <= (os.cpu_count() or 1)
    assert cpu.memory_bytes > GIB


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("said", "cores"), [("max 100000", 6), ("150000 100000", 2), ("10000 100000", 1), ("900000 100000", 6), ("", 6)]
)
def test_a_container_uses_no_more_cores_than_it_pays_for(
    said: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    (tmp_path / "cgroup").write_text("0::/user.slice/run-7.scope\n")
    (tmp_path / "user.slice").mkdir()
    if said:
        (tmp_path / "user.slice" / "cpu.max").write_text(said)
    assert this_cpu().cores == cores


def test_a_cache_that_cores_share_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    assert cache_bytes() == 0
    for core, shared in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        folder = tmp_path / f"cpu{core}" / "cache" / "index3"
        folder.mkdir(parents=True)
        (folder / "size").write_text("32768K\n")
        (folder / "shared_cpu_list").write_text(f"{shared}\n")
    assert cache_bytes() == 64 * MIB


@pytest.mark.usefixtures("unmeasured")
def test_this_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(measuring, "product_flops", lambda: 1e11)
    monkeypatch.setattr(measuring, "read_bandwidth", lambda threads, nbytes: asked.append((threads, nbytes)) or 5e10)
    monkeypatch.setattr(machine, "available_memory", lambda: 16 * GIB)
    monkeypatch.setattr(machine, "cache_bytes", lambda: 384 * MIB)
    features = frozenset({"avx512_vnni", "avx512_bf16", "amx", "avx2"})
    monkeypatch.setattr(machine, "this_cpu", lambda: machine.Cpu("A CPU", 96, features, 32 * GIB))
    device = this_machine()
    assert this_machine() is device
    assert asked == [(64, 1152 * MIB)]
    assert (device.name, device.kind, device.memory_bytes, device.bandwidth) == ("A CPU", "cpu", 16 * GIB, 5e10)
    assert device.flops == {"float32": 1e11, "bfloat16": 16e11, "int8": 32e11}
    assert device.features == features
    assert "64 threads" in device.source


@pytest.mark.usefixtures("unmeasured")
def test_little_memory_is_not_filled_to_measure_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(measuring, "product_flops", lambda: 1e11)
    monkeypatch.setattr(measuring, "read_bandwidth", lambda threads, nbytes: asked.append(nbytes) or 5e10)
    monkeypatch.setattr(machine, "available_memory", lambda: 512 * MIB)
    this_machine()
    assert asked == [64 * MIB]
