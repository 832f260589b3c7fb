"""How many bytes models have, in the forms that ernie-rt holds and in those that it does not."""

from __future__ import annotations

import pytest

from ernie_rt.contract import Device
from ernie_rt.errors import OptionError
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.planning.forms import FORMS, PARTS, STORED, forms_of, sizes
from ernie_rt.planning.plan import make_plan
from ernie_rt.weights.hub import DEMO
from ernie_rt.weights.quantize import Quantization
from support.configs import small

CARD = Device("a card", "cuda", 1 << 36, 1e12, {"bfloat16": 1e14}, "made up")
PUBLISHED = {
    "0.3B": (360_748_032, 360_748_032, 18_432),
    "21B-A3B": (21_825_437_888, 3_352_150_208, 57_344),
    "300B-A47B": (299_484_163_264, 47_926_586_560, 221_184),
    "VL-28B-A3B": (29_399_294_336, 3_352_150_208, 57_344),
    "VL-424B-A47B": (423_526_285_184, 47_926_586_560, 221_184),
}


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_parameters_and_bytes_of_a_token_are_exact(name: str) -> None:
    config = next(family.config for family in FAMILIES if family.name == name)
    plan = make_plan(name, config, PluginHost(), CARD, CARD.memory_bytes, [1024])
    found = plan.parameters, plan.active_parameters, plan.kv_bytes["bfloat16"]
    assert found == PUBLISHED[name.removesuffix("-Base").removesuffix("-Thinking")]
    assert plan.kv_bytes["float32"] == 2 * plan.kv_bytes["bfloat16"]


@pytest.mark.parametrize("config", [read_config(DEMO), small(), small(model_type="ernie4_5", use_bias=True)])
def test_the_parts_of_a_model_are_all_of_it(config: ModelConfig) -> None:
    weights = build_graph(config).weights
    found = sizes(weights, FORMS["float32"])
    assert list(found) == list(PARTS)
    assert sum(found.values()) == 4 * sum(w.type.elements() for w in weights if w.storage.stored)
    assert (found["routed experts"] > 0) == (config.moe is not None) == (found["router"] > 0)
    assert found["head"] == 0 or not config.tie_word_embeddings or config.use_bias


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_quantised_has_the_bytes_of_its_folder(bits: int) -> None:
    config = read_config(DEMO)
    how = Quantization(4 if bits == 4 else 8)
    written = sum(weight.nbytes() for weight in how.weights(config))
    assert sum(sizes(build_graph(config).weights, FORMS[f"int{bits}"]).values()) == written


def test_what_is_not_runnable_is_sized_by_its_rule() -> None:
    config = next(family.config for family in FAMILIES if family.name == "300B-A47B")
    weights = build_graph(config).weights
    found = {name: sizes(weights, form) for name, form in FORMS.items()}
    experts = sum(w.type.elements() for w in weights if ".experts." in w.name)
    assert found["fp8"]["routed experts"] == experts + 4 * experts // (128 * 128)
    assert found["int3"]["routed experts"] == experts * 3 // 8 + 2 * experts // 32
    assert found["2-bit"]["routed experts"] == experts * 2 // 8 + 2 * experts // 32
    assert found["fp8"]["embedding"] == found["bfloat16"]["embedding"]
    assert found["int3"]["embedding"] == found["int4"]["embedding"]
    assert [name for name, form in FORMS.items() if not form.is_runnable] == ["fp8", "int3", "2-bit"]
    totals = [sum(each.values()) for each in found.values()]
    assert totals == sorted(totals, reverse=True)


def test_forms_by_name() -> None:
    config = read_config(DEMO)
    assert [form.name for form in forms_of(config, None, "all")] == ["bfloat16", "int8", "fp8", "int4", "int3", "2-bit"]
    assert [form.name for form in forms_of(config, None, "int4, fp8,int4")] == ["fp8", "int4"]
    with pytest.raises(OptionError, match="no storage 'int5' is known; expected all, or some of float32"):
        forms_of(config, None, "int4,int5")


def test_a_quantised_model_has_one_form() -> None:
    config = read_config(DEMO)
    stored = {weight.name: weight.storage for weight in Quantization(4).weights(config)}
    (form,) = forms_of(config, stored, "all")
    assert form.name == STORED and form.storages(config) == stored
    plain = {name: FORMS["bfloat16"].storages(config)[name] for name in stored}
    assert len(forms_of(config, plain, "all")) > 1
