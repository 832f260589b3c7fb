"""The GPUs of this machine, by a tool that may be absent, ill, or of another version."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ernie_rt.planning import gpus
from ernie_rt.planning.device import GIB, MIB, find_device
from ernie_rt.planning.gpus import mac_gpu, nvidia_gpus, told

TWO = """0, GPU-aaaa1111, NVIDIA GeForce RTX 4090, 20123
1, GPU-bbbb2222, NVIDIA Something, the next, 4000
2, GPU-cccc3333, NVIDIA H100 80GB HBM3, [N/A]
3, GPU-dddd4444, NVIDIA A100-SXM4-80GB, 80000
4, GPU-eeee5555, NVIDIA Whatever 9, 1000
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `nvidia-smi` that does what is written into it, found before any other."""
    path = tmp_path / "nvidia-smi"
    monkeypatch.setattr(gpus, "SMI", (str(path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return path


def write(tool: Path, program: str) -> None:
    tool.write_text(f"#!{sys.executable}\n{program}\n")
    tool.chmod(0o755)


@pytest.fixture
def listing(tool: Path) -> None:
    write(tool, f"print({TWO!r}, end='')")


@pytest.mark.usefixtures("listing")
def test_cards_with_what_is_free_of_them() -> None:
    found = nvidia_gpus()
    assert [(card.name, card.memory_bytes // MIB) for card in found] == [
        ("NVIDIA GeForce RTX 4090", 20123 - 640),
        ("NVIDIA A100 80GB SXM", 80000 - 640),
        ("NVIDIA Whatever 9", 1000 - 640),
    ]
    assert found[0].bandwidth == find_device("4090").bandwidth
    assert (found[2].kind, found[2].bandwidth, found[2].flops) == ("cuda", 0.0, {})
    assert "not known" in found[2].source


@pytest.mark.usefixtures("listing")
@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("", []),
        ("-1", []),
        ("3", ["NVIDIA A100 80GB SXM"]),
        ("GPU-aaaa, 4", ["NVIDIA GeForce RTX 4090", "NVIDIA Whatever 9"]),
        ("4,GPU-aaaa", ["NVIDIA Whatever 9", "NVIDIA GeForce RTX 4090"]),  # cuda:0 is the first that is named
        ("GPU-ffff", []),
    ],
)
def test_cards_that_are_hidden_are_not_there(visible: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.name for card in nvidia_gpus()] == names


def test_no_tool_no_cards(tool: Path) -> None:
    assert nvidia_gpus() == ()
    tool.write_text("not a program")
    assert nvidia_gpus() == ()
    tool.chmod(0o755)
    assert nvidia_gpus() == ()


@pytest.mark.parametrize(
    "program",
    [
        "print('a' * 200_000)",
        "print('NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'); raise SystemExit(9)",
        "print('No devices were found')",
        "import sys; sys.stdout.buffer.write(bytes(range(256)))",
        "",
    ],
)
def test_a_tool_that_fails_names_no_cards(tool: Path, program: str) -> None:
    write(tool, program)
    assert nvidia_gpus() == ()


def test_a_tool_that_hangs_is_stopped(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2)
    write(tool, "import time; time.sleep(60)")
    began = time.monotonic()
    assert nvidia_gpus() == ()
    assert time.monotonic() - began < 5


def test_what_a_tool_prints() -> None:
    assert told([sys.executable, "-c", "print('said')"]).strip() == "said"
    assert told(["no-such-tool"]) == ""


def test_the_gpu_of_a_mac_has_what_metal_recommends() -> None:
    (gpu,) = mac_gpu("Apple M4 Max", 128 * GIB)
    assert (gpu.name, gpu.kind, gpu.bandwidth, gpu.memory_bytes) == ("Apple M4 Max 128GB", "mps", 546e9, 96 * GIB)
    (unknown,) = mac_gpu("Apple M99", 32 * GIB)
    assert (unknown.name, unknown.bandwidth, unknown.memory_bytes) == ("Apple M99 32GB", 0.0, 32 * GIB * 2 // 3)
    assert mac_gpu("Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz", 64 * GIB) == ()
