"""The onnx backend's way to a GPU, on machines without one: its memory on the CPU provider, its refusals for real."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import onnx
import onnxruntime as ort
from onnx import helper

import ernie_rt
from ernie_rt.build import build
from ernie_rt.choice import choose
from ernie_rt.conformance import Suite
from ernie_rt.contract import BlockQuantized, Limits, Lowering, Target, WeightSource
from ernie_rt.errors import BackendError, CapacityError, LoweringError, OptionError
from ernie_rt.host import PluginHost
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.runtime.engine import Engine
from ernie_rt.weights.synthetic import Synthetic
from ernie_rt_onnx import cuda
from ernie_rt_onnx.backend import OnnxBackend
from ernie_rt_onnx.emitter import OPSETS
from ernie_rt_onnx.executable import OnnxExecutable
from ernie_rt_onnx.library import KERNELS
from ernie_rt_onnx.memory import Buffer, DeviceMemory
from ernie_rt_onnx.provider import Provider
from support.configs import small
from support.rehearsal import CONTEXT, MODELS, Weights, drive, traffic

GPU = Target(("cuda:0",), "float16")
INT4 = BlockQuantized(4, 32)


def model(*nodes: onnx.NodeProto, dtype: int = onnx.TensorProto.FLOAT) -> bytes:
    """Nodes from `x` to `y`, of as many numbers as there are."""
    x, y = (helper.make_tensor_value_info(name, dtype, None) for name in "xy")
    graph = helper.make_graph(list(nodes), "nodes", [x], [y])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSETS[""])], ir_version=11
    ).SerializeToString()  # type: ignore[no-any-return]


RELU = helper.make_node("Relu", ["x"], ["y"], name="the-relu")


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend computes as on a GPU, from memory of a provider's, which is the CPU's."""

    def compile(
        self: OnnxBackend, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> OnnxExecutable:
        return OnnxExecutable(lowerings, weights, target, limits, 4, DeviceMemory(Provider()))

    monkeypatch.setenv(KERNELS, "none")
    monkeypatch.setattr(OnnxBackend, "compile", compile)


@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("dtype, storage", [("float32", "plain"), ("float16", "int4")])
def test_it_computes_what_it_should(dtype: str, storage: str) -> None:
    report = Suite("onnx", dtype=dtype, storage=storage).run(["L1"])
    assert report.ok and report.count("L1", "passed") > 8, report.table()


@pytest.mark.long
@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("dtype, storage", [("float32", "plain"), ("float16", "plain"), ("float16", "int4")])
def test_whole_models(dtype: str, storage: str) -> None:
    report = Suite("onnx", dtype=dtype, storage=storage).run(["L2", "L3"])
    assert report.ok, report.table()


@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("name", MODELS)
def test_traffic_moves_slots(name: str) -> None:
    with ernie_rt.load(
        MODELS[name], backend="onnx", weights=Weights(), dtype="float32", max_context=CONTEXT, max_sequences=4,
        max_batch_tokens=16,
    ) as loaded:  # fmt: skip
        executable: Any = loaded._executable
        assert isinstance(executable._memory, DeviceMemory)
        moved = []
        right = executable.copy
        executable.copy = lambda *each: (moved.append(each), right(*each))
        assert {each.finish for each in drive(Engine(executable, CONTEXT), name, traffic(name))} >= {"stop", "length"}
        assert moved


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int32", "uint8"])
def test_numbers_on_a_device(dtype: str) -> None:
    """Through memory of a session's and back, bit by bit; a slot copied, its neighbours left."""
    memory = DeviceMemory(Provider())
    given = np.arange(24).reshape(3, 2, 4).astype(dtype)
    held, found = memory.hold(given[:, :, ::-1]), np.empty_like(given)

    def read() -> np.ndarray:
        held.as_bytes().read_by(memory._binding, "from")
        Buffer.of(found).as_bytes().written_by(memory._binding, "to")
        memory._session.run_with_iobinding(memory._binding)
        return found

    np.testing.assert_array_equal(read(), given[:, :, ::-1])
    memory.copy(held, 2, 0, 1)
    np.testing.assert_array_equal(read(), given[[2, 1, 2], :, ::-1])


def test_weights_are_read_one_after_the_other() -> None:
    """The host never has the whole model: each array is gone when the next one is asked for."""
    alive: list[Any] = []

    class Counting(Synthetic):
        def fill(self, weight: Any, part: str, out: Any, index: tuple[int, ...] = ()) -> None:
            super().fill(weight, part, out, index)
            alive.append(out.ctypes.data)

    built = build(small(head_dim=16), OnnxBackend(), Target(("cpu",), "float16"))
    memory = DeviceMemory(Provider())
    executable = OnnxExecutable(built.lowerings, Counting(), built.target, Limits(32), 4, memory)
    (program,) = executable._programs.values()
    assert len(alive) == len(program._held)
    assert not set(alive) & {buffer.address for buffer in program._held.values()}
    left = weakref.ref(memory)
    del memory, program
    executable.close()
    assert left() is None


class Elsewhere:
    """A session of the CPU's that says it has a provider too."""

    def __init__(self, session: ort.InferenceSession, *providers: str) -> None:
        self.get_provider_graph_assignment_info = session.get_provider_graph_assignment_info
        self.get_providers = lambda: [*providers, "CPUExecutionProvider"]


def test_every_node_is_looked_for() -> None:
    expected = Provider(cuda.CUDA, "cuda")
    shape = helper.make_node("Shape", ["x"], ["shape"], name="its-shape")
    session: Any = Provider().start(model(RELU), ort.SessionOptions())
    Provider().check_placement(session)
    with pytest.raises(
        BackendError, match=r"^cuda:0: ONNX Runtime could not load its CUDAExecutionProvider, and would"
    ):
        expected.check_placement(session)
    with pytest.raises(BackendError, match=r"parts of the model on the CPU.*lacks some; found the-relu \(Relu\)$"):
        expected.check_placement(Elsewhere(session, cuda.CUDA))  # type: ignore[arg-type]
    chain = [helper.make_node("Relu", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"], name=f"relu{i}") for i in range(6)]
    chain.append(helper.make_node("Neg", ["v6"], ["y"], name="last"))
    session = Provider().start(model(*chain), ort.SessionOptions())
    with pytest.raises(BackendError, match=r"found relu0 \(Relu\), .* and 2 more$"):
        expected.check_placement(Elsewhere(session, cuda.CUDA))  # type: ignore[arg-type]
    graph = helper.make_node("Cast", ["shape"], ["y"], to=onnx.TensorProto.FLOAT, name="its-cast")
    session = Provider().start(model(shape, graph), ort.SessionOptions())
    with pytest.raises(BackendError, match=r"found its-cast \(Cast\)$"):  # and not its-shape
        expected.check_placement(Elsewhere(session, cuda.CUDA))  # type: ignore[arg-type]


def test_a_provider_that_cannot_be_loaded() -> None:
    """onnxruntime-gpu on a machine without a GPU, or without CUDA's libraries."""
    if cuda.CUDA not in ort.get_available_providers() or cuda.lacking() is None:
        pytest.skip("needs onnxruntime-gpu, and no GPU")
    with pytest.raises(BackendError, match="could not load its CUDAExecutionProvider"):
        cuda.provider("cuda:0").start(model(RELU), ort.SessionOptions())


def test_a_provider_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(self: ort.InferenceSession, providers: Any, *rest: Any) -> None:
        tried.append(providers)
        raise RuntimeError("no memory is left on the device")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    with pytest.raises(RuntimeError, match="no memory is left"):
        cuda.provider("cuda:1").start(model(RELU), ort.SessionOptions())
    ((provider,),) = tried
    assert provider[0] == cuda.CUDA and provider[1]["device_id"] == "1" and provider[1]["use_tf32"] == "0"


def lacks(monkeypatch: pytest.MonkeyPatch, providers: tuple[str, ...], count: int, loads: bool) -> str:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "nvidia_gpus", lambda: count)
    monkeypatch.setattr(cuda, "_loads", lambda name: loads)
    monkeypatch.setattr(ort, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return cuda.lacking() or ""


def test_it_says_what_is_missing_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "built without CUDA: pip uninstall -y onnxruntime && pip install 'ernie-rt[onnx-gpu]'" in lacks(
        monkeypatch, (), 1, True
    )
    assert "no GPU of NVIDIA with its driver" in lacks(monkeypatch, (cuda.CUDA,), 0, True)
    told = lacks(monkeypatch, (cuda.CUDA,), 2, False)
    assert "needs libcublasLt.so.13, libcublas.so.13, libcudart.so.13, libcurand.so.10, libcudnn.so.9" in told
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]' 'nvidia-cublas~=13.0'" in told
    assert lacks(monkeypatch, (cuda.CUDA,), 2, True) == "" and cuda.devices() == ("cuda:0", "cuda:1")
    assert capsys.readouterr().out == ""


def test_the_command_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks(monkeypatch, (cuda.CUDA,), 0, True)
    with pytest.raises(OptionError, match=r"no device 'cuda' here; expected one of cpu. Of 'cuda': no GPU of NVIDIA"):
        choose(PluginHost(), backend="onnx", device="cuda")
    lacks(monkeypatch, (cuda.CUDA,), 1, True)
    choice = choose(PluginHost(), backend="onnx", device="cuda", stored="float32")
    assert (choice.device, choice.dtype) == ("cuda:0", "bfloat16")
    assert choose(PluginHost(), backend="onnx").device == "cpu"  # a GPU is for who asks
    with pytest.raises(OptionError, match=r"no device 'cuda:1' here; expected one of cpu, cuda:0$"):
        choose(PluginHost(), backend="onnx", device="cuda:1")


class Driver:
    """NVIDIA's, of one device with room for 5 bytes."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.held, self.current = fails, 0, 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.fails:
                return 1
            if name == "cuMemGetInfo_v2":
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_size_t))[0] = 5
            self.held += {"cuDevicePrimaryCtxRetain": 1, "cuDevicePrimaryCtxRelease_v2": -1}.get(name, 0)
            self.current += {"cuCtxPushCurrent_v2": 1, "cuCtxPopCurrent_v2": -1}.get(name, 0)
            return 0

        return call


@pytest.mark.parametrize(
    "fails, free",
    [
        ("", 5),
        ("cuDeviceGet", None),
        ("cuDevicePrimaryCtxRetain", None),
        ("cuCtxPushCurrent_v2", None),
        ("cuMemGetInfo_v2", None),
    ],
)
def test_free_memory(fails: str, free: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(fails)
    monkeypatch.setattr(cuda, "nvidia_driver", lambda: driver)
    assert cuda.free_memory("cuda:0") == free and (driver.held, driver.current) == (0, 0)
    monkeypatch.setattr(cuda, "nvidia_driver", lambda: None)
    assert cuda.free_memory("cuda:0") is None


def test_the_bill_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(small(head_dim=16), OnnxBackend(), GPU)
    for free in (None, 5):
        monkeypatch.setattr(cuda, "free_memory", lambda device, free=free: free)
        assert built.bill(Limits(32)).available == free
    with pytest.raises(CapacityError, match="the memory that is free; expected at most 5 B"):
        memory = DeviceMemory(Provider(), 5)
        OnnxExecutable(built.lowerings, Synthetic(), replace(GPU, devices=("cpu",)), Limits(32), 4, memory)


def test_what_it_claims_there() -> None:
    backend = OnnxBackend()
    assert backend.accepts(INT4, GPU) and not backend.accepts(INT4.laid_out("tiled"), GPU)
    assert backend.numerics(GPU).default.activations is None
    assert backend.numerics(Target(("cpu",), "float16")).default.activations == "int8"

    def ops(experts: int, packed: bool) -> set[str]:
        graph = build_graph(small(head_dim=16, hidden_size=64, moe_intermediate_size=experts), "float16")
        if packed:
            graph = graph.with_weights(lambda w: replace(w, storage=INT4) if ".experts." in w.name else w)
        return {node.op for node in build({"main": graph}, backend, GPU).lowering.graph.nodes}

    assert "moe" in ops(24, False) and "moe" in ops(64, True)
    for width in (8, 12):
        assert not {"moe", "moe_experts"} & ops(width, False)  # its parts instead
    with pytest.raises(LoweringError, match="rows and experts alone, of sizes that 64 divides"):
        ops(32, True)
