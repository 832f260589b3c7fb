"""What the onnx backend says of this machine, and what ONNX Runtime's own record says of its sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from ernie_rt.contract import Finding, Target
from ernie_rt.doctor import trial
from ernie_rt.host import PluginHost
from ernie_rt_onnx import cuda, examine, library
from ernie_rt_onnx.backend import OnnxBackend
from ernie_rt_onnx.library import KERNELS

CPU = Target(("cpu",), "float32")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "nvidia_gpus", lambda: 0)
    monkeypatch.delenv(KERNELS, raising=False)


def found(target: Target = CPU) -> list[Finding]:
    return list(OnnxBackend().examine(target))


def test_kernels_that_are_chosen_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if library.kernels() is None:
        pytest.skip("this installation has no library of operators")
    monkeypatch.setenv(KERNELS, "none")
    (finding,) = found()
    assert (finding.severity, finding.command) == ("slow", f"unset {KERNELS}")
    monkeypatch.setenv(KERNELS, "plain")
    (finding,) = found()
    assert (finding.severity, finding.command) == ("remark", f"unset {KERNELS}")
    monkeypatch.delenv(KERNELS)
    assert not found()


@pytest.mark.parametrize("compiler", [True, False])
def test_a_library_that_was_not_built(compiler: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "library_path", lambda: None)
    monkeypatch.setattr(examine, "kernels", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if compiler else None)
    (finding,) = found()
    assert finding.severity == "slow" and "was not built" in finding.seen
    assert finding.command.startswith("pip install --force-reinstall --no-deps ")
    assert ("compiler" in finding.advice) is not compiler


def test_a_library_that_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "_ops.so"
    damaged.write_bytes(b"\x7fELF")
    for module in (examine, library):
        monkeypatch.setattr(module, "library_path", lambda: damaged)
    (finding,) = found()
    assert finding.severity == "slow" and f"{damaged}, cannot be loaded" in finding.seen


def test_a_gpu_that_it_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(cuda, "obstacle", lambda: ("built without CUDA", "pip install it"))
    assert [(f.severity, f.seen, f.command) for f in found() if f.severity == "slow"] == [
        ("slow", "built without CUDA", "pip install it")
    ]
    assert cuda.lacking() == "built without CUDA: pip install it"
    assert not found(Target(("cuda:0",), "float16"))
    monkeypatch.setattr(cuda, "obstacle", lambda: None)
    assert cuda.lacking() is None


@pytest.mark.parametrize("library_used", [True, False])
def test_where_nodes_ran_is_what_the_profile_says(library_used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if library_used and library.kernels() is None:
        pytest.skip("this installation has no library of operators")
    if not library_used:
        monkeypatch.setenv(KERNELS, "none")
    kernels = library.kernels()
    tried = trial.attempt(PluginHost(), "onnx", "cpu")
    plain, blocks = tried.trials
    assert (plain.wrong, blocks.wrong) == ("", "")
    assert (plain.storage, blocks.storage) == ("plain", "int4/tiled" if library_used else "int4")
    for ran in (plain, blocks):
        assert ran.executed is not None and ran.executed.pieces.keys() == {"CPUExecutionProvider"}
        assert ran.executed.pieces["CPUExecutionProvider"] > 1000
        ours = f"by the library of operators ({kernels})"
        assert any(note.endswith(ours) for note in ran.executed.notes) is library_used


def test_who_is_not_watched_leaves_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine.Profiles, "__init__", lambda self: pytest.fail("watched"))
    import ernie_rt

    with ernie_rt.load("demo", backend="onnx", max_context=32) as model:
        assert model._executable.executed() is None  # type: ignore[attr-defined]
