"""The onnx backend in the conformance suite, with weights of every storage, beside mutants of it that must fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from packaging.version import Version

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime as ort
from onnx import helper

from ernie_rt.conformance import Result, Suite
from ernie_rt.conformance.suite import Check
from ernie_rt.contract import Lowering, Numerics, OpNumerics, WeightSource
from ernie_rt_onnx import executable, functions
from ernie_rt_onnx.backend import OnnxBackend
from ernie_rt_onnx.emitter import Emitter, Parameter
from ernie_rt_onnx.library import KERNELS
from ernie_rt_onnx.model import step_model, tensor


def suite(storage: str) -> Suite:
    return Suite("onnx", dtype="float32", storage=storage)


@pytest.mark.parametrize("storage, levels", [("plain", "0123"), ("int8", "12"), ("int4", "12")])
def test_it_computes_what_it_should(storage: str, levels: str) -> None:
    report = suite(storage).run([f"L{level}" for level in levels])
    assert report.ok, report.table()
    reasons = {result.check: result.reason for result in report.results if result.status == "skipped"}
    if "3" in levels:
        assert reasons["L3/moe/preempt"] == "a slot holds a whole sequence: nothing is ever preempted"
    assert report.subject["accepts"] == ({} if storage == "plain" else {f"{storage}/32": True, "int8/32": True})


@pytest.mark.parametrize(
    "models", [("moe", "large-moe"), pytest.param(("dense", "vl", "large-dense"), marks=pytest.mark.long)]
)
def test_nothing_changes_an_answer_of_int4(models: tuple[str, ...]) -> None:
    """By default of models with weights of all kinds: how sequences come and go is the same for whatever weights."""
    found = [check.run() for check in suite("int4").checks(["L3"]) if check.name.split("/")[1] in models]
    assert found and {result.status for result in found} <= {"passed", "skipped"}, found


@pytest.mark.parametrize("storage", ["plain", "int8", "int4"])
def test_so_do_stock_operators(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions' own bodies, which kernels of the library replace where there is one."""
    monkeypatch.setenv(KERNELS, "none")
    report = suite(storage).run(["L1"])
    assert report.ok, report.table()


def test_scores_of_a_picture_are_never_all_in_memory() -> None:
    """As in a child process: memory that was used once is used again. Of 5,000 patches scores would take 200 MB."""
    program = """
import resource
import numpy as np
from ernie_rt.build import build
from ernie_rt.contract import Limits, Step, Target
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import TensorType
from ernie_rt_onnx.backend import OnnxBackend
b = Builder()
qkv, frame = b.input("qkv", TensorType("float32", ("S", 96))), b.input("frame", TensorType("int32", ("S",)))
cos, sin = (b.input(name, TensorType("float32", ("S", 8))) for name in ("cos", "sin"))
attrs = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 16, "scale": 0.25}
graph = b.finish("main", {"y": b("rope_attention", qkv, cos, sin, None, None, frame, **attrs)})
built = build({"main": graph}, OnnxBackend(), Target(("cpu",), "float32", threads=1))
executable = built.with_taps(graph.outputs).compile(None, Limits(16, 1, 16))
def attend(count):
    tables = np.zeros((count, 8), np.float32)
    extra = {"qkv": np.ones((count, 96), np.float32), "cos": tables, "sin": tables, "frame": np.zeros(count, np.int32)}
    executable.submit(Step.without_tokens("main", extra)).result()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = attend(8)
print((attend(5000) - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert float(found.stdout) < 60


def test_activations_that_are_rounded_and_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Numerics(OpNumerics("float32", "float32"))
    monkeypatch.setattr(OnnxBackend, "numerics", lambda self, target: exact)
    assert suite("int4").run(["L1"]).count("L1", "failed") == 10  # taking rows rounds nothing


def test_nibbles_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = executable.read

    def swapped(parameter: Parameter, source: WeightSource, bindings: Mapping[str, int]) -> np.ndarray[Any, Any]:
        array = right(parameter, source, bindings)
        return (array >> 4 | array << 4).astype(np.uint8) if parameter.part == "codes" else array

    monkeypatch.setattr(executable, "read", swapped)
    assert suite("int4").run(["L1"]).count("L1", "failed") >= 7


def knows_shapes(lowering: Lowering, emitter: Emitter, inputs: Iterable[str]) -> onnx.ModelProto:
    """The model of a step with the type of each value, by which ONNX Runtime lets one take the memory of another; what
    attention gives has no shape otherwise."""
    model = step_model(lowering, emitter, inputs)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    values = [value for node in lowering.graph.nodes for value in node.outputs]
    types = [tensor(emitter.name(value), value.type) for value in values]
    model.graph.value_info.extend(info for info in types if info.name not in known)
    return model


def deep(storage: str) -> Result:
    (check,) = (check for check in suite(storage).checks(["L2"]) if str(check) == "L2/deep-moe/logits")
    return check.run()


@pytest.mark.parametrize("storage", ["plain", "int8", "int4"])
def test_a_deep_model_whose_values_take_each_others_memory(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable, "step_model", knows_shapes)
    assert deep(storage).status == "passed"


def test_what_old_experts_lose_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """MoE that does not normalise what is normalised already: wrong up to 1.31 (issue 33866 of ONNX Runtime)."""
    monkeypatch.setattr(executable, "step_model", knows_shapes)
    monkeypatch.setitem(functions.SWIGLU, "normalize_routing_weights", 0)  # type: ignore[misc]
    assert deep("plain").status == ("failed" if Version(ort.__version__) < Version("1.32") else "passed")


@pytest.mark.parametrize("function", functions.FUNCTIONS.values())
def test_experts_normalise(function: Callable[[], onnx.FunctionProto]) -> None:
    """Whichever ONNX Runtime an exported model will meet."""
    (experts,) = (node for node in function().node if node.domain == "com.microsoft")
    assert helper.make_attribute("normalize_routing_weights", 1) in experts.attribute


@pytest.fixture(scope="module")
def on_trained_weights() -> Check:
    """Of one suite, which quantises the model once, and asks the oracle once what it says of it."""
    (check,) = (check for check in suite("int4").checks(["L4"]) if str(check) == "L4/plain/logits")
    return check


def test_int4_on_trained_weights(on_trained_weights: Check) -> None:
    result = on_trained_weights.run()
    assert result.status == "passed" and result.figures["margin"] < 0.8, result
    assert result.figures["router_flips"] > 0 and result.figures["excused"] <= 0.05 * result.figures["positions"]


@pytest.mark.long
@pytest.mark.parametrize("storage", ["int4", "int8"])
def test_all_of_trained_weights(storage: str) -> None:
    report = suite(storage).run(["L4", "L5"])
    assert report.ok, report.table()


def test_a_wrong_zero_in_one_expert(on_trained_weights: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    right = executable.read

    def shifted(parameter: Parameter, source: WeightSource, bindings: Mapping[str, int]) -> np.ndarray[Any, Any]:
        array = right(parameter, source, bindings)
        if parameter.part == "codes" and ".experts." in parameter.weight.name:
            low, high = (np.minimum(nibble + 2, 15) for nibble in (array[3] & 15, array[3] >> 4))
            array = array.copy()
            array[3] = low | high << 4
        return array

    monkeypatch.setattr(executable, "read", shifted)
    result = on_trained_weights.run()
    assert result.status == "failed" and result.figures["times"] > result.figures["limit"], result


def test_a_bias_that_weighs_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stock QMoE does when it is given one set of scores to choose and to weigh by."""

    def biased() -> Any:
        function = right()
        for node in function.node:
            if node.op_type == "GatherElements":
                node.input[0] = "scores"
        return function

    from ernie_rt_onnx.functions import FUNCTIONS

    right = FUNCTIONS["MoE"]
    monkeypatch.setenv(KERNELS, "none")
    monkeypatch.setattr("ernie_rt_onnx.emitter.FUNCTIONS", {**FUNCTIONS, "MoE": biased})
    report = suite("plain").run(["L1"])
    assert {r.check for r in report.results if r.status == "failed"} >= {"L1/moe/bias", "L1/moe_block/shared-experts"}


def test_small_heads_are_refused_in_words() -> None:
    from ernie_rt.errors import LoweringError
    from ernie_rt.loading import load
    from ernie_rt.location import Located
    from ernie_rt.weights.synthetic import Synthetic
    from support.configs import small

    with pytest.raises(
        LoweringError, match="only GroupQueryAttention writes a cache, and its heads are of a multiple of 16"
    ):
        load(Located(small(head_dim=8)), backend="onnx", weights=Synthetic())
