"""Which way is chosen, why, and what would be faster."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ernie_rt.contract import Device
from ernie_rt.host import PluginHost
from ernie_rt.modeling.families import find
from ernie_rt.planning.plan import Plan, make_plan
from ernie_rt_cudagraph.planner import CudaGraphPlanner

GIB = 1 << 30
CPU = Device(
    "a CPU", "cpu", 64 * GIB, 40e9, {"float32": 3e11, "bfloat16": 6e11, "int8": 12e11}, "made up",
    frozenset({"avx512_bf16", "avx512_vnni"}),
)  # fmt: skip


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> PluginHost:
    """One in which every backend has what it needs."""
    host = PluginHost()
    monkeypatch.setattr(host, "missing", lambda name: None)
    monkeypatch.setattr("ernie_rt_onnx.planner.kernels", lambda: "avx512")
    return host


def plan(host: PluginHost, model: str, room: float, context: int = 1024, **options: object) -> Plan:
    family = find(model)
    assert family is not None
    device = options.pop("device", CPU)
    return make_plan(model, family.config, host, device, round(room * GIB), [context], **options)  # type: ignore[arg-type]


def chosen(made: Plan) -> tuple[str, str, str] | None:
    (choice,) = made.choices
    return None if choice is None else (choice.form, choice.backend, choice.fit)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (64, ("bfloat16", "eager", "yes")),
        (40, ("int8", "onnx", "yes")),
        (14, ("int4", "onnx", "yes")),  # rather than int8 from disk
        (4, ("int4", "onnx", "from disk")),  # which is the least of it
        (0.1, None),
    ],
)
def test_the_widest_form_that_fits_on_the_fastest_backend(
    room: float, expected: tuple[str, str, str] | None, host: PluginHost
) -> None:
    assert chosen(plan(host, "21B-A3B", room)) == expected


def test_a_choice_has_its_reasons_and_a_command(host: PluginHost) -> None:
    made = plan(host, "21B-A3B", 14)
    (choice,) = made.choices
    assert choice is not None
    assert made.why(choice) == (
        "bfloat16: does not fit",
        "int8: would be read from disk, again and again",
        "fp8: ernie-rt does not hold such weights yet",
        "eager: does not fit",
        "reference: does not fit",
    )
    assert made.command(choice) == (
        "ernie-rt run 21B-A3B --weights int4 --backend onnx --device cpu --max-context 1024"
    )
    assert made.faster(choice) == ()


def test_what_would_be_faster_and_how_to_get_it(host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(host, "21B-A3B", 64)
    (choice,) = made.choices
    assert choice is not None and chosen(made) == ("bfloat16", "eager", "yes")
    first, *_ = made.faster(choice)
    assert first.endswith("times as fast: --weights int4, which rounds the weights")
    assert made.command(choice) == "ernie-rt run 21B-A3B --backend eager --device cpu --max-context 1024"
    monkeypatch.setattr(host, "missing", lambda name: "needs onnxruntime" if name == "onnx" else None)
    lacking = plan(host, "0.3B", 64)
    (choice,) = lacking.choices
    assert choice is not None and choice.backend == "eager"
    assert any("install what onnx needs onnxruntime: pip install" in text for text in lacking.faster(choice))
    assert any(text.startswith("onnx: needs onnxruntime: pip install") for text in lacking.why(choice))


def test_why_nothing_is_chosen(host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(host, "21B-A3B", 0.1).obstacle(1024) == "nothing that runs here fits"
    monkeypatch.setattr(host, "missing", lambda name: None if name == "reference" else f"needs {name}")
    made = plan(host, "21B-A3B", 14)
    assert made.choices == (None,)
    assert made.obstacle(1024).startswith("what fits is not installed: onnx needs onnx: pip install 'ernie-rt[onnx]'")


def test_a_command_says_all_that_was_planned(host: PluginHost) -> None:
    made = replace(plan(host, "0.3B", 64, dtype="float32", sequences=4), model="a folder")
    (choice,) = made.choices
    assert choice is not None and made.command(choice) == (
        f"ernie-rt serve 'a folder' --backend {choice.backend} --device cpu --dtype float32 --max-context 1024 "
        "--max-sequences 4"
    )


def test_a_form_that_fits_what_is_not_installed(host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widened to float32, as onnx holds it, the 21B has no room; in bfloat16, as eager does, it has."""
    monkeypatch.setattr(host, "missing", lambda name: "needs torch" if name == "eager" else None)
    made = plan(host, "21B-A3B", 64)
    (choice,) = made.choices
    assert choice is not None and chosen(made) == ("int8", "onnx", "yes")
    assert made.why(choice)[0].startswith("bfloat16: fits eager alone, which needs torch: pip install")


def test_the_widest_form_is_chosen_in_whatever_order_they_are_named(host: PluginHost) -> None:
    made = plan(host, "0.3B", 64, storage="int4, bfloat16,int4")
    (choice,) = made.choices
    assert choice is not None and choice.form == "bfloat16"
    assert [each.form for each in made.candidates].count("int4") == 3


def test_a_backend_that_has_not_run_on_a_card_comes_last(host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = CudaGraphPlanner.rates
    monkeypatch.setattr(CudaGraphPlanner, "rates", lambda *given: replace(rates(*given), has_run=False))
    card = Device("a card", "cuda", 80 * GIB, 2e12, {"bfloat16": 4e14, "float32": 6e13}, "made up")
    made = plan(host, "21B-A3B", 79, device=card)
    assert chosen(made) == ("bfloat16", "eager", "yes")
    (choice,) = made.choices
    assert choice is not None and "cudagraph: nobody has run it on such a device" in made.why(choice)
    assert any("--backend cudagraph, which nobody has run on such a device" in each for each in made.faster(choice))


def test_bills_grow_with_context_and_sequences(host: PluginHost) -> None:
    one, many = plan(host, "0.3B", 64), plan(host, "0.3B", 64, context=2048, sequences=4)
    for a, b in zip(one.candidates, many.candidates, strict=True):
        assert b.bill.cache_bytes == 8 * a.bill.cache_bytes and (a.backend, a.form) == (b.backend, b.form)
        assert a.bill.cache_bytes == 1024 * one.kv_bytes["bfloat16"] * {"bfloat16": 1, "float32": 2}[a.dtype] * (
            2 if a.backend == "reference" else 1
        )


def test_a_plan_as_json(host: PluginHost) -> None:
    made = plan(host, "300B-A47B", 16, context=65536)
    told = json.loads(json.dumps(made.to_json()))
    assert told["choices"] == [None] and told["kv_bytes_per_token"]["bfloat16"] == 221_184
    assert told["weights"]["fp8"]["runnable"] is False and told["weights"]["int4"]["rule"] is None
    assert {each["backend"] for each in told["candidates"]} == {"onnx", "eager", "reference"}
    assert all(sum(form["parts"].values()) == form["bytes"] for form in told["weights"].values())


def test_without_figures_of_a_device_nothing_is_predicted(host: PluginHost) -> None:
    unknown = replace(CPU, bandwidth=0.0, flops={})
    made = plan(host, "0.3B", 64, device=unknown)
    assert all(each.speed is None for each in made.candidates) and chosen(made) is not None
