"""`ernie-rt backends`: what can run a model here, and what the others lack."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from support.commands import command
from support.installed import TRITON


def test_json() -> None:
    ran = command("backends", "--json")
    onnx, eager, reference, cudagraph = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert onnx["dtypes"] == {"cpu": ["float32", "float16"], "cuda": ["bfloat16", "float16"]}
    assert (eager["name"], eager["usable"], eager["status"]) == ("eager", True, "usable")
    assert eager["dtypes"]["cpu"] == ["float32", "bfloat16", "float16"]
    assert (reference["name"], reference["usable"]) == ("reference", True)
    assert (cudagraph["name"], cudagraph["usable"]) == ("cudagraph", False)
    lack = "a cuda device, and none is to be seen here" if TRITON else "triton>=3.6: pip install 'ernie-rt[cuda]'"
    assert cudagraph["status"] == f"needs {lack}"


def test_table() -> None:
    ran = command("backends")
    header, onnx, eager, reference, cudagraph, lack = ran.out.splitlines()
    assert ran.code == 0 and header.split() == ["NAME", "STATUS", "DEVICES", "SUMMARY"]
    assert eager.split()[:5] == ["eager", "usable", "cpu,", "cuda,", "mps"] and reference.startswith("reference ")
    assert onnx.split()[:4] == ["onnx", "usable", "cpu,", "cuda"]
    assert cudagraph.split()[:3] == ["cudagraph", "lacking", "cuda"] and lack.startswith("cudagraph needs ")


def test_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.7" if name == "torch" else version(name))
    onnx, eager, reference, _ = json.loads(command("backends", "--json").out)
    assert not eager["usable"] and eager["status"] == "needs torch>=2.8: pip install 'ernie-rt[torch]'"
    assert onnx["usable"] and reference["usable"]
    *_, lack, _ = command("backends").out.splitlines()
    assert lack == "eager needs torch>=2.8: pip install 'ernie-rt[torch]'"
