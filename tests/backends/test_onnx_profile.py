"""Which node of ours ONNX Runtime's time went to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
import onnx

from ernie_rt_onnx.profile import Profile, inlined, read_profile


def test_the_last_run_of_a_file(tmp_path: Path) -> None:
    def event(name: str, start: int, took: int, category: str = "Node") -> dict[str, object]:
        return {"name": name, "ts": start, "dur": took, "cat": category}

    path = tmp_path / "profile.json"
    first = [event("0_kernel_time", 10, 90), event("model_run", 5, 100, "Session")]
    last = [
        event("Mul_1/Fused/_kernel_time", 215, 40), event("0_kernel_time", 210, 4), event("0_fence_before", 209, 1),
        event("SequentialExecutor::Execute", 206, 60, "Session"), event("model_run", 205, 70, "Session"),
        event("y.loop_kernel_time", 216, 30) | {"args": {"op_name": "Loop"}},  # whose nodes are there themselves
    ]  # fmt: skip
    path.write_text(json.dumps([*first, *last]))
    profile = read_profile(path)
    assert profile.seconds == pytest.approx(70e-6)
    assert profile.nodes == [("0", pytest.approx(4e-6)), ("Mul_1/Fused/", pytest.approx(40e-6))]


def test_what_was_fused_added_or_inlined_finds_its_node() -> None:
    names = ["0", "Mul_1/Fused/", "Squeeze", "1", "Cast", "_inlfunc_MoE_TopK/x", "_inlfunc_MoE_token_0_Add", "3"]
    profile = Profile(10.0, [(name, 1.0) for name in names])
    made_for = {"0": "0", "Mul_1": "1", "1": "1", "3": "3"} | {"_inlfunc_MoE_": "2", "_inlfunc_MoE_token_0_": "3"}
    times = profile.times(12.0, made_for)
    assert times.nodes == {"0": 1.0, "1": 3.0, "2": 1.0, "3": 2.0}
    assert times.others == {
        "nodes that ONNX Runtime added": 1.0, "ONNX Runtime between nodes": 2.0, "before and after ONNX Runtime": 2.0
    }  # fmt: skip
    assert times.unexplained == pytest.approx(0)


def test_calls_of_functions_are_numbered_by_function() -> None:
    ops = ["MoE", "Gemm", "MoE", "QMoE"]
    nodes = [onnx.helper.make_node(op, [], [], name=str(place)) for place, op in enumerate(ops)]
    assert inlined(nodes, {"MoE", "QMoE"}) == {
        "_inlfunc_MoE_": "0", "_inlfunc_MoE_token_0_": "2", "_inlfunc_QMoE_": "3"
    }  # fmt: skip
