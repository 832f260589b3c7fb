"""Which backend, device and dtype `auto` becomes, and the reason that is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from ernie_rt.choice import AUTOMATIC, Choice, accelerators, by_prediction, choose
from ernie_rt.contract import BackendBase, Device, Rate, Rates, Storage, Target
from ernie_rt.errors import BackendError, CapacityError, OptionError
from ernie_rt.graph.types import DType
from ernie_rt.hooks import BackendInfo, hookimpl
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.planning.forms import FORMS
from ernie_rt.planning.machine import Cpu
from ernie_rt.weights.hub import DEMO

CPU: Mapping[str, tuple[DType, ...]] = {"cpu": ("float32", "bfloat16")}
GPU: Mapping[str, tuple[DType, ...]] = {"cuda": ("float16", "float32"), "cpu": ("float32", "bfloat16")}


STEP_SECONDS = {"onnx": 1e-3, "eager": 2e-3, "cudagraph": 0.5e-3, "reference": 1.0}


class FakePlanner:
    """Of a backend whose steps take so long, and which has run on a CPU, or if it is eager."""

    def __init__(self, name: str) -> None:
        self.name = name

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def rates(self, target: Target, device: Device) -> Rates:
        has_run = device.kind == "cpu" or self.name == "eager"
        return Rates({target.dtype: Rate(1, 1, target.dtype)}, 1, STEP_SECONDS[self.name], 0, "", has_run)


class Fakes:
    """Backends that know their devices and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = ModuleType("fake_engines")
        monkeypatch.setitem(sys.modules, "fake_engines", self.module)
        self.infos: list[BackendInfo] = []

    def add(
        self,
        name: str,
        devices: object = ("cpu",),
        dtypes: Mapping[str, tuple[DType, ...]] = CPU,
        requires: tuple[str, ...] = (),
    ) -> Fakes:
        def asked(self: object) -> object:
            if isinstance(devices, Exception):
                raise devices
            return devices

        setattr(self.module, name, type(name, (), {"devices": asked}))
        planner = f"fake_engines:{name}_planner" if name in AUTOMATIC else ""
        setattr(self.module, f"{name}_planner", partial(FakePlanner, name))
        self.infos.append(BackendInfo(name, f"fake_engines:{name}", "", dtypes, requires, planner=planner))
        return self

    def derived(self, name: str, not_deterministic: Callable[[Any, Target], str | None]) -> None:
        """Let a backend be one that inherits from BackendBase, and says this of being deterministic."""
        here = {"devices": lambda self: ("cpu",), "not_deterministic": not_deterministic}
        abstract = dict.fromkeys(("claims", "numerics", "compile"))
        setattr(self.module, name, type(name, (BackendBase,), here | abstract))

    def host(self) -> PluginHost:
        plugin = ModuleType("fakes")
        plugin.PLUGIN_API = 2  # type: ignore[attr-defined]
        plugin.ernie_rt_backends = hookimpl(lambda: self.infos)  # type: ignore[attr-defined]
        host = PluginHost(entry_points=False, extra=[plugin])
        assert not host.failures, host.failures
        return host


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(monkeypatch)


def test_auto_takes_what_is_predicted_to_be_the_fastest(fakes: Fakes) -> None:
    for name in ("another", "reference", "eager", "onnx"):
        fakes.add(name)
    for name in ("onnx", "eager", "reference"):
        assert choose(fakes.host()).backend == name
        fakes.infos = [info for info in fakes.infos if info.name != name]
    with pytest.raises(BackendError, match="no backend can run this"):
        choose(fakes.host())  # "another" is never taken unasked
    assert choose(fakes.host(), backend="another").reason == "asked for"


def test_auto_says_what_it_passed_over_and_why(fakes: Fakes) -> None:
    fakes.add("onnx", devices=RuntimeError("driver too old")).add("eager", requires=("absent-package",))
    fakes.add("reference")
    choice = choose(fakes.host())
    assert (choice.backend, choice.device, choice.dtype) == ("reference", "cpu", "bfloat16")
    assert choice.reason == (
        "predicted to be the fastest that is usable; "
        "onnx: backend 'onnx' cannot name its devices: RuntimeError: driver too old; "
        "eager: backend 'eager' cannot be used: it needs absent-package"
    )


def test_a_planner_that_fails_stops_no_other(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    host = fakes.add("onnx").add("eager").host()
    monkeypatch.delattr(fakes.module, "onnx_planner")
    assert choose(host).backend == "eager"
    assert by_prediction(host, "cpu") == ["eager", "onnx"]


def test_auto_prefers_a_gpu_to_an_earlier_backend(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.choice.accelerators", lambda: ("cuda",))
    fakes.add("onnx").add("eager", ("cuda:0", "cpu"), GPU)
    choice = choose(fakes.host())
    assert (choice.backend, choice.device, choice.reason) == ("eager", "cuda:0", "the first that runs on cuda")
    assert choose(fakes.host(), device="cpu").backend == "onnx"


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_what_has_run_on_a_gpu_comes_first(device: str, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.choice.accelerators", lambda: ("cuda",))
    for name in ("onnx", "cudagraph", "eager"):
        fakes.add(name, ("cuda:0", "cpu"), GPU)
        assert choose(fakes.host(), device=device).backend == name
    assert choose(fakes.host(), device="cuda", attempt=large("cudagraph", "eager")).backend == "onnx"


@pytest.mark.parametrize(
    ("model", "features", "bits", "order"),
    [
        ("demo", {"avx512_bf16"}, 0, ["onnx", "eager", "reference"]),  # overhead decides
        ("0.3B", {"avx512_bf16"}, 0, ["eager", "onnx", "reference"]),  # which widens bfloat16
        ("0.3B", set(), 0, ["onnx", "eager", "reference"]),  # and this CPU does, number by number
        ("0.3B", {"avx512_bf16", "avx512_vnni"}, 4, ["onnx", "eager", "reference"]),
        ("21B-A3B", {"avx512_bf16"}, 8, ["onnx", "eager", "reference"]),
        ("21B-A3B", {"avx512_bf16"}, 0, ["eager", "onnx", "reference"]),
    ],
)
def test_the_order_of_our_backends(
    model: str, features: set[str], bits: Any, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(DEMO) if model == "demo" else next(f.config for f in FAMILIES if f.name == model)
    monkeypatch.setattr("ernie_rt.planning.usual.this_cpu", lambda: Cpu("", 2, frozenset(features), 1 << 34))
    storages = FORMS[f"int{bits}"].storages(config) if bits else None
    assert by_prediction(PluginHost(), "cpu", model=config, storages=storages) == order
    assert by_prediction(PluginHost(), "cuda", model=config, storages=storages) == ["cudagraph", "eager", "onnx"]


def test_a_gpu_that_no_backend_can_use(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ernie_rt.choice.accelerators", lambda: ("cuda",))
    fakes.add("cudagraph", requires=("absent-package",), dtypes=GPU).add("onnx").add("eager", ("cpu",), GPU)
    choice = choose(fakes.host())
    assert (choice.backend, choice.device) == ("onnx", "cpu")
    assert "eager: backend 'eager' has no device 'cuda' here" in choice.reason


@pytest.mark.parametrize(
    ("system", "libraries", "kinds"),
    [
        ("Linux", {"libcuda.so.1"}, ("cuda",)),
        ("Windows", {"nvcuda.dll"}, ("cuda",)),
        ("Linux", set(), ()),
        ("Darwin", set(), ("mps",)),
    ],
)
def test_accelerators(
    system: str, libraries: set[str], kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        if name not in libraries:
            raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", load)
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert accelerators() == kinds


def test_deterministic_is_asked_for_by_name_or_of_the_first_that_can(fakes: Fakes) -> None:
    fakes.add("onnx").add("eager").add("reference")  # the first knows nothing of the mode
    fakes.derived("eager", lambda self, target: f"not on {target.device} in {target.dtype}")
    fakes.derived("reference", lambda self, target: None)
    choice = choose(fakes.host(), deterministic=True)
    assert choice.backend == "reference"
    assert choice.passed_over == (
        "onnx: backend 'onnx' cannot be deterministic: it knows nothing of `Target.deterministic`",
        "eager: backend 'eager' cannot be deterministic: not on cpu in bfloat16",
    )
    assert choose(fakes.host()).backend == "onnx"
    with pytest.raises(BackendError, match=r"'eager' cannot be deterministic: not on cpu in bfloat16.*--backend"):
        choose(fakes.host(), backend="eager", deterministic=True)
    fakes.derived("reference", BackendBase.not_deterministic)
    with pytest.raises(BackendError, match="it does not say that a token's numbers depend on nothing"):
        choose(fakes.host(), deterministic=True)


def test_nothing_usable_lists_every_reason(fakes: Fakes) -> None:
    fakes.add("eager").add("reference", dtypes={"cpu": ("float64",)})
    with pytest.raises(BackendError) as caught:
        choose(fakes.host(), dtype="float16")
    message = str(caught.value)
    assert caught.value.exit_code == 1 and "`ernie-rt backends`" in message
    assert "in dtype 'float16': eager: backend 'eager' does not compute" in message, "what nobody has is not named"
    assert "reference: backend 'reference' does not compute in float16 on cpu" in message


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(
    ("device", "dtype", "stored", "chosen"),
    [
        ("auto", "auto", "float16", ("cuda:0", "float16")),  # kept
        ("auto", "auto", "bfloat16", ("cuda:0", "float16")),  # cannot be kept: the preferred one
        ("cpu", "auto", "bfloat16", ("cpu", "bfloat16")),
        ("cpu", "auto", "float16", ("cpu", "float32")),
        ("cuda", "float32", "bfloat16", ("cuda:0", "float32")),
        ("cuda:1", "auto", "float32", ("cuda:1", "float32")),
    ],
)
def test_device_and_dtype(
    backend: str, device: str, dtype: str, stored: DType, chosen: tuple[str, str], fakes: Fakes
) -> None:
    fakes.add("eager", ("cuda:0", "cuda:1", "xpu:0", "cpu"), GPU)
    choice = choose(fakes.host(), backend=backend, device=device, dtype=dtype, stored=stored)
    assert (choice.backend, choice.device, choice.dtype) == ("eager", *chosen)


@pytest.mark.parametrize("device", ["cuda:2", "cuda", "mps", "xpu", "xpu:0", "", "gpu", "CPU:0"])
def test_a_device_that_is_not_there(device: str, fakes: Fakes) -> None:
    fakes.add("eager", ("xpu:0", "cpu"), GPU)
    host = fakes.host()
    kind = device.partition(":")[0]
    near = {"gpu": "Did you mean 'cuda'\\? ", "CPU": "Did you mean 'cpu'\\? "}.get(kind, "")
    hint = "" if kind == "cuda" else f". {near}It runs on cuda and cpu alone; backends for '{kind}': none"
    with pytest.raises(OptionError, match=f"backend 'eager' has no device '{device}' here; expected one of cpu{hint}$"):
        choose(host, backend="eager", device=device)
    with pytest.raises(BackendError, match=f"on device '{device}'.*'eager' has no device"):
        choose(host, device=device)


def test_a_kind_of_device_that_others_run_on(fakes: Fakes) -> None:
    fakes.add("onnx").add("eager", dtypes=GPU)
    hint = "'cuda' here; expected one of cpu. It runs on cpu alone; backends for 'cuda': eager"
    with pytest.raises(OptionError, match=f"'onnx' has no device {hint}$"):
        choose(fakes.host(), backend="onnx", device="cuda")


def test_a_dtype_that_the_device_does_not_compute_in(fakes: Fakes) -> None:
    fakes.add("eager", ("cuda:0", "cpu"), GPU)
    with pytest.raises(OptionError, match=r"not compute in bfloat16 on cuda:0; expected one of float16, float32$"):
        choose(fakes.host(), backend="eager", dtype="bfloat16")


def large(*names: str) -> Callable[[Choice], None]:
    """Backends that have no room for a model."""

    def attempt(choice: Choice) -> None:
        if choice.backend in names:
            raise CapacityError("does not fit", expected="at most 1", found=f"2 of {choice.backend}", hint="Less")

    return attempt


def test_auto_goes_on_where_the_model_does_not_fit(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    host = fakes.add("onnx").add("eager", ("cuda:0", "cpu"), GPU).add("reference").host()
    choice = choose(host, device="cpu", attempt=large("onnx"))
    assert choice.backend == "eager"
    assert choice.reason.endswith("onnx on cpu in bfloat16: 2 of onnx, does not fit")
    with pytest.raises(CapacityError, match=r"fits no backend .* expected at most 1; found onnx on cpu"):
        choose(host, device="cpu", attempt=large("onnx", "eager", "reference"))
    with pytest.raises(CapacityError, match="does not fit; expected at most 1; found 2 of onnx"):
        choose(host, backend="onnx", attempt=large("onnx"))

    def on_the_cpu(choice: Choice) -> None:
        if choice.device != "cpu":
            raise CapacityError("does not fit", found="2 of device memory")

    monkeypatch.setattr("ernie_rt.choice.accelerators", lambda: ("cuda",))
    fakes.infos = [info for info in fakes.infos if info.name == "eager"]
    choice = choose(fakes.host(), attempt=on_the_cpu)
    assert (choice.backend, choice.device) == ("eager", "cpu") and "2 of device memory" in choice.reason


def test_unknown_names_are_options_not_failures(fakes: Fakes) -> None:
    host = fakes.add("eager").host()
    with pytest.raises(OptionError, match=r"unknown dtype 'fp32'; expected auto or one of .*float32"):
        choose(host, dtype="fp32")
    with pytest.raises(OptionError, match="no backend 'egaer'; expected one of eager"):
        choose(host, backend="egaer")
