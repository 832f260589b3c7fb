"""What the page of a plan says is what the plan says."""

from __future__ import annotations

import pytest

from ernie_rt.host import PluginHost
from ernie_rt.modeling.families import find
from ernie_rt.planning.device import find_device, known_devices, room
from ernie_rt.planning.forms import FORMS
from ernie_rt.planning.page import SEQUENCES, Bar, Picture
from ernie_rt.planning.picture import picture_of
from ernie_rt.planning.plan import Plan, make_plan

CARD = find_device("RTX 4090")


@pytest.fixture(scope="module")
def plan() -> Plan:
    known = find("0.3B")
    assert known is not None
    return make_plan("0.3B", known.config, PluginHost(), CARD, room(CARD), [4096, 131072])


@pytest.fixture(scope="module")
def picture(plan: Plan) -> Picture:
    return picture_of(plan, PluginHost(), [find_device("9950X 64GB")])


def total(bar: Bar, context: int, sequences: int) -> int:
    return sum(bar.weights.values()) + bar.cache[context][sequences] + bar.workspace[context][sequences]


def test_bars_are_the_candidates_of_the_plan(plan: Plan, picture: Picture) -> None:
    bars = {bar.name: bar for bar in picture.bars if bar.kind == "cuda"}
    seen = 0
    for each in plan.candidates:
        if each.dequantised or each.backend == "reference":
            continue
        bar = bars[f"{each.form}, {each.backend}"]
        place = picture.contexts.index(each.limits.max_context)
        assert total(bar, place, 0) == each.bill.nbytes + each.bill.mapped_bytes
        assert bar.cache[place][0] == each.bill.cache_bytes
        assert bar.mapped_bytes == each.bill.mapped_bytes
        assert each.speed is not None and bar.decode is not None
        reading = bar.decode.weight_bytes[0] + each.limits.max_context * bar.decode.row_bytes
        computing = sum(
            (token + each.limits.max_context * row) / CARD.flops[products]
            for products, (token, row) in bar.decode.flops.items()
        )
        assert max(reading / CARD.bandwidth, computing) + bar.decode.seconds == pytest.approx(each.speed.full_seconds)
        seen += 1
    assert seen >= 4


def test_there_is_a_bar_for_each_kind_of_device(picture: Picture) -> None:
    names = {kind: {bar.name for bar in picture.bars if bar.kind == kind} for kind in ("cpu", "cuda", "mps")}
    assert "int4, onnx" in names["cpu"] and "bfloat16, eager" in names["mps"]
    assert {f"{form.name}, no backend yet" for form in FORMS.values() if not form.is_runnable} <= names["cuda"]
    assert not any("reference" in name for kind in names.values() for name in kind)
    assert "int4, eager" not in names["cuda"]  # which holds such weights in 16 bits


def test_more_sequences_take_more(picture: Picture) -> None:
    for bar in picture.bars:
        assert all(each > 0 for each in bar.weights.values())
        assert min(map(min, bar.workspace)) >= 0, bar.name
        for place, context in enumerate(picture.contexts):
            assert bar.cache[place][-1] == SEQUENCES[-1] * bar.cache[place][0] > 0, context
        if bar.decode is not None:
            assert list(bar.decode.weight_bytes) == sorted(bar.decode.weight_bytes)
    weights = {bar.name: sum(bar.weights.values()) for bar in picture.bars if bar.kind == "cuda"}
    assert weights["2-bit, no backend yet"] < weights["int4, onnx"] < weights["bfloat16, eager"]


def test_devices_of_this_machine_are_there_once(plan: Plan, picture: Picture) -> None:
    (here,) = picture.here
    assert (here.name, here.memory_bytes) == ("AMD Ryzen 9 9950X", 64 << 30)
    assert sorted(device.name for device in (here, *picture.others)) == sorted(d.name for d in known_devices())
    assert (picture.context, picture.sequences, picture.device) == (4096, 1, CARD.name)
    assert picture.contexts == tuple(1 << i for i in range(10, 18))
