"""cudagraph where it cannot run: without Triton, without a GPU."""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec

import pytest

import ernie_rt
from ernie_rt.choice import choose
from ernie_rt.errors import BackendError, OptionError
from ernie_rt.host import PluginHost


def test_its_kernels_are_tested_in_a_folder_of_their_own() -> None:
    if find_spec("triton") is None:
        pytest.skip("tests/cudagraph: triton is not installed (pip install 'ernie-rt[cuda]')")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "triton":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    assert PluginHost().missing("cudagraph") == "needs triton>=3.6"
    with pytest.raises(BackendError, match=r"it needs triton>=3\.6\. pip install 'ernie-rt\[cuda\]'"):
        ernie_rt.load("demo", backend="cudagraph")


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ernie_rt_cudagraph.backend.INTERPRETED", False)
    with pytest.raises(
        OptionError,
        match=r"'cudagraph' has no device on this machine; expected cuda: .*Ampere on\. Leave out --backend",
    ):
        choose(PluginHost(), backend="cudagraph")


def test_an_older_gpu_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    backend = PluginHost().backend("cudagraph")
    monkeypatch.setattr("ernie_rt_cudagraph.backend.INTERPRETED", False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda name: {"cuda:0": (7, 5)}.get(name, (8, 0)))
    assert backend.devices() == ("cuda:1", "cuda:2")
