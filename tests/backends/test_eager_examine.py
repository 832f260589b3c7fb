"""What the eager backend says of this machine and of what ran, on processors and GPUs that are not here."""

from __future__ import annotations

import sys

import pytest
import torch

from ernie_rt.contract import Finding, Target
from ernie_rt.contract.drivers import newest_cuda, nvidia_driver, nvidia_gpus
from ernie_rt.doctor import trial
from ernie_rt.host import PluginHost
from ernie_rt_eager import examine
from ernie_rt_eager.backend import EagerBackend


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies everything, and no GPU."""
    monkeypatch.setattr(examine, "cpu_multiplies", lambda dtype: True)
    monkeypatch.setattr(examine, "nvidia_gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def found(device: str = "cpu", dtype: str = "bfloat16") -> list[Finding]:
    return list(EagerBackend().examine(Target((device,), dtype)))  # type: ignore[arg-type]


def test_nothing_is_wrong() -> None:
    assert not found() and not found("mps")


def test_a_processor_without_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "cpu_multiplies", lambda dtype: dtype is torch.float32)
    (finding,) = found()
    assert finding.severity == "remark" and "no multiply-adds in bfloat16" in finding.seen
    assert not found(dtype="float32")
    assert examine.notes(Target(("cpu",), "bfloat16", threads=2))[1:] == (
        "2 threads",
        "bfloat16 products through float32",
    )


def test_a_gpu_that_it_was_not_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    for platform, is_command in (("linux", True), ("win32", False)):
        monkeypatch.setattr(sys, "platform", platform)
        (finding,) = found()
        assert finding.severity == "slow" and "was built without CUDA" in finding.seen
        assert finding.command.startswith("pip install --force-reinstall torch==") is is_command
        assert ("pytorch.org" in finding.advice) is not is_command
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert not found()


def test_a_gpu_that_is_hidden_or_whose_driver_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(examine, "newest_cuda", lambda: "12.2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (finding,) = found()
    assert "was built for CUDA 13.0, and finds no GPU: the driver knows CUDA up to 12.2" in finding.seen
    assert "Update the driver" in finding.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = found()
    assert finding.command == "unset CUDA_VISIBLE_DEVICES"


def test_a_gpu_that_multiplies_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    (finding,) = found("cuda:0")
    assert finding.severity == "slow" and finding.seen == "Tesla T4 multiplies no bfloat16"
    assert not found("cuda:0", "float16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert not found("cuda:0")


def test_metal_that_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(examine.FALLBACK, "1")
    (finding,) = found("mps")
    assert finding.command == f"unset {examine.FALLBACK}"


def test_what_ran_where() -> None:
    """On this processor, whatever it multiplies."""
    tried = trial.attempt(PluginHost(), "eager", "cpu")
    assert [ran.dtype for ran in tried.trials] == ["float32", "bfloat16"]
    for ran in tried.trials:
        assert ran.wrong == "" and ran.executed is not None
        assert ran.executed.pieces.keys() == {"cpu"} and ran.executed.pieces["cpu"] > 1000
        assert ran.executed.notes[0] == f"torch {torch.__version__}"
        assert ran.executed.notes[2] == f"{ran.dtype} products natively"


def test_a_machine_without_a_driver() -> None:
    if nvidia_driver() is not None:
        assert nvidia_gpus() > 0 and newest_cuda()
    else:
        assert nvidia_gpus() == 0 and newest_cuda() == ""
